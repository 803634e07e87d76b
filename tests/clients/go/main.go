// What programs do through arrow-go, told a line each: name, tab, value. Arguments: address, process of the logs,
// and for TLS the file of the authority.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"micromegas.tests/told"
)

func rows(ctx context.Context, client *flightsql.Client, info *flight.FlightInfo) (total int64, first arrow.RecordBatch) {
	reader := told.Must(client.DoGet(ctx, info.Endpoint[0].Ticket))
	defer reader.Release()
	announced := told.Must(flight.DeserializeSchema(info.Schema, memory.DefaultAllocator))
	if !announced.Equal(reader.Schema()) {
		panic("the schema that was announced is another one")
	}
	for reader.Next() {
		total += reader.RecordBatch().NumRows()
		if first == nil {
			first = reader.RecordBatch()
			first.Retain()
		}
	}
	if reader.Err() != nil {
		told.Must(0, reader.Err())
	}
	return total, first
}

func parameters(process string, level int64) arrow.RecordBatch {
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "process", Type: arrow.BinaryTypes.String}, {Name: "level", Type: arrow.PrimitiveTypes.Int64},
	}, nil)
	builder := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer builder.Release()
	builder.Field(0).(*array.StringBuilder).Append(process)
	builder.Field(1).(*array.Int64Builder).Append(level)
	return builder.NewRecordBatch()
}

func main() {
	address, process, transport := os.Args[1], os.Args[2], insecure.NewCredentials()
	if len(os.Args) > 3 {
		transport = told.Must(credentials.NewClientTLSFromFile(os.Args[3], ""))
	}
	client := told.Must(flightsql.NewClient(address, nil, nil, grpc.WithTransportCredentials(transport)))
	defer client.Close()
	ctx := context.Background()

	sql := "SELECT * FROM log_entries WHERE process_id = '" + process + "'"
	total, _ := rows(ctx, client, told.Must(client.Execute(ctx, sql)))
	told.Tell("logs", total)
	described := told.Must(client.GetExecuteSchema(ctx, sql))
	told.Tell("schema", told.Must(flight.DeserializeSchema(described.GetSchema(), memory.DefaultAllocator)).NumFields() > 5)

	prepared := told.Must(client.Prepare(ctx, "SELECT count(*) AS n FROM log_entries WHERE process_id = ? AND level <= ?"))
	told.Tell("parameters", fmt.Sprint(prepared.ParameterSchema().Field(0).Type, " ", prepared.ParameterSchema().Field(1).Type))
	for _, level := range []int64{6, 0} {
		prepared.SetParameters(parameters(process, level))
		_, first := rows(ctx, client, told.Must(prepared.Execute(ctx)))
		told.Tell(fmt.Sprint("level ", level), first.Column(0).(*array.Int64).Value(0))
	}
	told.Must(prepared, prepared.Close(ctx))

	total, _ = rows(ctx, client, told.Must(client.GetCatalogs(ctx)))
	told.Tell("catalogs", total)
	total, _ = rows(ctx, client, told.Must(client.GetDBSchemas(ctx, &flightsql.GetDBSchemasOpts{})))
	told.Tell("schemas", total)
	total, _ = rows(ctx, client, told.Must(client.GetTableTypes(ctx)))
	told.Tell("table types", total)
	total, _ = rows(ctx, client, told.Must(client.GetXdbcTypeInfo(ctx, nil)))
	told.Tell("types", total)
	total, _ = rows(ctx, client, told.Must(client.GetPrimaryKeys(ctx, flightsql.TableRef{Table: "processes"})))
	told.Tell("keys", total)
	total, _ = rows(ctx, client, told.Must(client.GetSqlInfo(ctx, nil)))
	told.Tell("infos", total > 50)

	options := told.Must(flight.NewSessionOptionValues(map[string]any{"catalog": ""}))
	answered := told.Must(client.SetSessionOptions(ctx, &flight.SetSessionOptionsRequest{SessionOptions: options}))
	told.Tell("session errors", len(answered.GetErrors()))
	told.Must(client.CloseSession(ctx, &flight.CloseSessionRequest{}))

	info := told.Must(client.Execute(ctx, "SELECT value FROM generate_series(1, 100000000000)"))
	reader := told.Must(client.DoGet(ctx, info.Endpoint[0].Ticket))
	reader.Next()
	cancelled := told.Must(client.CancelFlightInfo(ctx, &flight.CancelFlightInfoRequest{Info: info}))
	told.Tell("cancel", cancelled.GetStatus())
	for reader.Next() {
	}
	told.Tell("cancelled", strings.ReplaceAll(fmt.Sprint(reader.Err()), "\n", " "))

	_, err := client.Execute(ctx, "SELECT nothing FROM log_entries")
	told.Tell("wrong", strings.ReplaceAll(fmt.Sprint(err), "\n", " "))
	_, err = client.ExecuteUpdate(ctx, "DELETE FROM log_entries")
	told.Tell("update", strings.ReplaceAll(fmt.Sprint(err), "\n", " "))
}
