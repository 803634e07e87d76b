//! What Rust programs do through arrow-flight, told a line each: name, tab, value. Arguments: address, process of the
//! logs, and for TLS the file of the authority.

use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{CommandGetTables, SqlInfo};
use arrow_flight::FlightInfo;
use arrow_schema::{DataType, Field, Schema};
use futures_util::TryStreamExt;
use std::error::Error;
use std::sync::Arc;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};

type Client = FlightSqlServiceClient<Channel>;

async fn rows(client: &mut Client, info: FlightInfo) -> Result<Vec<RecordBatch>, Box<dyn Error>> {
    assert_eq!(info.endpoint.len(), 1);
    let schema = info.clone().try_decode_schema()?;
    let ticket = info.endpoint[0].ticket.clone().ok_or("no ticket")?;
    let batches: Vec<RecordBatch> = client.do_get(ticket).await?.try_collect().await?;
    for batch in &batches {
        assert_eq!(batch.schema().fields(), schema.fields());
    }
    Ok(batches)
}

fn count(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

fn number(batches: &[RecordBatch]) -> i64 {
    batches[0]
        .column(0)
        .as_any()
        .downcast_ref::<Int64Array>()
        .expect("a bigint")
        .value(0)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let (address, process) = (arguments[1].clone(), arguments[2].clone());
    let mut endpoint = Channel::from_shared(address)?;
    if let Some(authority) = arguments.get(3) {
        let certificate = Certificate::from_pem(std::fs::read(authority)?);
        endpoint = endpoint.tls_config(ClientTlsConfig::new().ca_certificate(certificate))?;
    }
    let channel = endpoint.connect().await?;
    let mut client = FlightSqlServiceClient::new(channel.clone());

    let info = client
        .execute(
            format!("SELECT * FROM log_entries WHERE process_id = '{process}'"),
            None,
        )
        .await?;
    println!("logs\t{}", count(&rows(&mut client, info).await?));

    let mut prepared = client
        .prepare(
            "SELECT count(*) AS n FROM log_entries WHERE process_id = $1 AND level <= $2".to_owned(),
            None,
        )
        .await?;
    let kinds: Vec<String> = prepared
        .parameter_schema()?
        .fields()
        .iter()
        .map(|f| f.data_type().to_string())
        .collect();
    println!("parameters\t{}", kinds.join(" "));
    for level in [6, 0] {
        let schema = Schema::new(vec![
            Field::new("process", DataType::Utf8, false),
            Field::new("level", DataType::Int64, false),
        ]);
        let values: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![process.clone()])),
            Arc::new(Int64Array::from(vec![level])),
        ];
        prepared.set_parameters(RecordBatch::try_new(Arc::new(schema), values)?)?;
        let info = prepared.execute().await?;
        println!("level {level}\t{}", number(&rows(&mut client, info).await?));
    }
    prepared.close().await?;

    // as the original's client does: a range that is empty, and dictionaries as they are
    let mut original = FlightSqlServiceClient::new(channel.clone());
    original.set_header("query_range_begin", "");
    original.set_header("query_range_end", "");
    original.set_header("preserve_dictionary", "true");
    let info = original
        .execute("SELECT target FROM log_entries".to_owned(), None)
        .await?;
    let batches = rows(&mut original, info).await?;
    println!(
        "dictionaries\t{} {}",
        count(&batches),
        batches[0].schema().field(0).data_type()
    );

    let tables = CommandGetTables {
        catalog: None,
        db_schema_filter_pattern: None,
        table_name_filter_pattern: Some("log%".to_owned()),
        table_types: vec!["table".to_owned()],
        include_schema: true,
    };
    let info = client.get_tables(tables).await?;
    let found = rows(&mut client, info).await?;
    let names = found[0]
        .column(2)
        .as_any()
        .downcast_ref::<StringArray>()
        .expect("texts");
    println!("tables\t{}", names.iter().flatten().collect::<Vec<_>>().join(" "));
    let info = client
        .get_sql_info(vec![SqlInfo::FlightSqlServerName, SqlInfo::FlightSqlServerReadOnly])
        .await?;
    println!("infos\t{}", count(&rows(&mut client, info).await?));
    let info = client.get_catalogs().await?;
    println!("catalogs\t{}", count(&rows(&mut client, info).await?));

    let failure = client
        .execute("SELECT nothing FROM log_entries".to_owned(), None)
        .await
        .expect_err("no such column");
    println!("wrong\t{}", failure.to_string().replace('\n', " "));
    let failure = client
        .execute_update("DELETE FROM log_entries".to_owned(), None)
        .await
        .expect_err("read only");
    println!("update\t{}", failure.to_string().replace('\n', " "));
    Ok(())
}
