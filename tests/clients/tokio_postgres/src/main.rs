//! What Rust programs do with a PostgreSQL, through tokio-postgres, told a line each: name, tab, value.
//! Arguments: connection string and process of the logs.

use std::time::SystemTime;

use futures_util::{pin_mut, TryStreamExt};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage};

const OWN: &str = "SELECT msg FROM log_entries WHERE process_id = $1 ORDER BY time";

fn tell(name: &str, value: impl std::fmt::Display) {
    println!("{name}\t{value}");
}

fn state<T>(asked: Result<T, Error>) -> String {
    match asked {
        Ok(_) => "none".into(),
        Err(error) => error
            .code()
            .map_or_else(|| error.to_string(), |state: &SqlState| state.code().into()),
    }
}

async fn ask(client: &mut Client, process: &str) -> Result<(), Error> {
    let statement = client.prepare(OWN).await?;
    tell("parameters", format!("{:?}", statement.params()));
    tell(
        "columns",
        statement
            .columns()
            .iter()
            .map(|each| each.type_().name())
            .collect::<Vec<_>>()
            .join(" "),
    );
    for _ in 0..3 {
        tell("logs", client.query(&statement, &[&process]).await?.len());
    }
    let since = "SELECT count(*) FROM log_entries WHERE process_id = $1 AND time > $2 AND level = ANY($3)";
    let levels: Vec<i32> = (0..7).collect();
    let row = client
        .query_one(since, &[&process, &SystemTime::UNIX_EPOCH, &levels])
        .await?;
    tell("since", row.get::<_, i64>(0));
    let row = client
        .query_one(
            "SELECT true, 2.5, 'ü☃', arrow_cast(NULL, 'Utf8'), time, make_array('a', 'b c') FROM log_entries LIMIT 1",
            &[],
        )
        .await?;
    let nothing: Option<String> = row.get(3);
    let list: Vec<String> = row.get(5);
    let kinds = (row.get::<_, bool>(0), row.get::<_, f64>(1), row.get::<_, String>(2));
    tell(
        "types",
        format!(
            "{kinds:?} {nothing:?} {} {list:?}",
            row.get::<_, SystemTime>(4) > SystemTime::UNIX_EPOCH
        ),
    );

    let transaction = client.transaction().await?;
    let portal = transaction.bind(&statement, &[&process]).await?;
    let mut pieces = Vec::new();
    loop {
        let rows = transaction.query_portal(&portal, 3).await?;
        pieces.push(rows.len());
        if rows.len() < 3 {
            break;
        }
    }
    tell("pieces", format!("{pieces:?}"));
    tell(
        "unknown column",
        state(transaction.query("SELECT nosuch FROM log_entries", &[]).await),
    );
    tell("failed", state(transaction.query("SELECT 1", &[]).await));
    transaction.rollback().await?;

    let copied = client
        .copy_out("COPY (SELECT msg FROM log_entries) TO STDOUT (FORMAT binary)")
        .await?;
    pin_mut!(copied);
    let mut bytes = 0;
    while let Some(piece) = copied.try_next().await? {
        bytes += piece.len();
    }
    tell("copied", bytes > 100);
    let simple = client
        .simple_query("SELECT 1; SELECT msg FROM log_entries; SHOW server_version")
        .await?;
    tell(
        "simple",
        simple
            .iter()
            .filter(|each| matches!(each, SimpleQueryMessage::CommandComplete(_)))
            .count(),
    );
    tell("mismatch", client.query(&statement, &[&7_i32]).await.is_err());
    tell("after", client.query(&statement, &[&process]).await?.len());
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().collect();
    let (mut client, connection) = tokio_postgres::connect(&arguments[1], NoTls).await?;
    let serving = tokio::spawn(connection);
    let asked = ask(&mut client, &arguments[2]).await;
    drop(client);
    serving.await.expect("the connection is served")?;
    asked
}
