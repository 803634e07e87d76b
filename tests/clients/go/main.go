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
)

func tell(name string, value any) { fmt.Printf("%s\t%v\n", name, value) }

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func rows(ctx context.Context, client *flightsql.Client, info *flight.FlightInfo) (total int64, first arrow.RecordBatch) {
	reader := must(client.DoGet(ctx, info.Endpoint[0].Ticket))
	defer reader.Release()
	announced := must(flight.DeserializeSchema(info.Schema, memory.DefaultAllocator))
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
		must(0, reader.Err())
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
		transport = must(credentials.NewClientTLSFromFile(os.Args[3], ""))
	}
	client := must(flightsql.NewClient(address, nil, nil, grpc.WithTransportCredentials(transport)))
	defer client.Close()
	ctx := context.Background()

	sql := "SELECT * FROM log_entries WHERE process_id = '" + process + "'"
	total, _ := rows(ctx, client, must(client.Execute(ctx, sql)))
	tell("logs", total)
	described := must(client.GetExecuteSchema(ctx, sql))
	tell("schema", must(flight.DeserializeSchema(described.GetSchema(), memory.DefaultAllocator)).NumFields() > 5)

	prepared := must(client.Prepare(ctx, "SELECT count(*) AS n FROM log_entries WHERE process_id = ? AND level <= ?"))
	tell("parameters", fmt.Sprint(prepared.ParameterSchema().Field(0).Type, " ", prepared.ParameterSchema().Field(1).Type))
	for _, level := range []int64{6, 0} {
		prepared.SetParameters(parameters(process, level))
		_, first := rows(ctx, client, must(prepared.Execute(ctx)))
		tell(fmt.Sprint("level ", level), first.Column(0).(*array.Int64).Value(0))
	}
	must(prepared, prepared.Close(ctx))

	total, _ = rows(ctx, client, must(client.GetCatalogs(ctx)))
	tell("catalogs", total)
	total, _ = rows(ctx, client, must(client.GetDBSchemas(ctx, &flightsql.GetDBSchemasOpts{})))
	tell("schemas", total)
	total, _ = rows(ctx, client, must(client.GetTableTypes(ctx)))
	tell("table types", total)
	total, _ = rows(ctx, client, must(client.GetXdbcTypeInfo(ctx, nil)))
	tell("types", total)
	total, _ = rows(ctx, client, must(client.GetPrimaryKeys(ctx, flightsql.TableRef{Table: "processes"})))
	tell("keys", total)
	total, _ = rows(ctx, client, must(client.GetSqlInfo(ctx, nil)))
	tell("infos", total > 50)

	options := must(flight.NewSessionOptionValues(map[string]any{"catalog": ""}))
	answered := must(client.SetSessionOptions(ctx, &flight.SetSessionOptionsRequest{SessionOptions: options}))
	tell("session errors", len(answered.GetErrors()))
	must(client.CloseSession(ctx, &flight.CloseSessionRequest{}))

	info := must(client.Execute(ctx, "SELECT value FROM generate_series(1, 100000000000)"))
	reader := must(client.DoGet(ctx, info.Endpoint[0].Ticket))
	reader.Next()
	cancelled := must(client.CancelFlightInfo(ctx, &flight.CancelFlightInfoRequest{Info: info}))
	tell("cancel", cancelled.GetStatus())
	for reader.Next() {
	}
	tell("cancelled", strings.ReplaceAll(fmt.Sprint(reader.Err()), "\n", " "))

	_, err := client.Execute(ctx, "SELECT nothing FROM log_entries")
	tell("wrong", strings.ReplaceAll(fmt.Sprint(err), "\n", " "))
	_, err = client.ExecuteUpdate(ctx, "DELETE FROM log_entries")
	tell("update", strings.ReplaceAll(fmt.Sprint(err), "\n", " "))
}
