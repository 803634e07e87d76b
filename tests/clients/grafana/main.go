// What the data source plugin of Grafana does with the client that it was built from, told a line each: name, tab,
// value. Arguments: address, password (may be empty), process of the logs, and for TLS the file of the authority.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/apache/arrow/go/v12/arrow"
	"github.com/apache/arrow/go/v12/arrow/array"
	"github.com/apache/arrow/go/v12/arrow/flight"
	"github.com/apache/arrow/go/v12/arrow/flight/flightsql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"micromegas.tests/told"
)

// The plugin refuses any number of endpoints but one.
func rows(ctx context.Context, client *flightsql.Client, info *flight.FlightInfo) ([]arrow.Record, *arrow.Schema) {
	if len(info.Endpoint) != 1 {
		panic(fmt.Sprintf("%d endpoints", len(info.Endpoint)))
	}
	reader := told.Must(client.DoGet(ctx, info.Endpoint[0].Ticket))
	defer reader.Release()
	var found []arrow.Record
	for reader.Next() {
		record := reader.Record()
		record.Retain()
		found = append(found, record)
	}
	if reader.Err() != nil {
		told.Must(0, reader.Err())
	}
	return found, reader.Schema()
}

func count(records []arrow.Record) (total int64) {
	for _, record := range records {
		total += record.NumRows()
	}
	return total
}

// The types that its frames can hold; of all others it makes columns without rows, or none of the answer at all.
func readable(schema *arrow.Schema) string {
	for _, field := range schema.Fields() {
		switch kind := field.Type.(type) {
		case *arrow.StringType, *arrow.Int32Type, *arrow.Int64Type, *arrow.Float64Type, *arrow.BooleanType:
		case *arrow.TimestampType:
			if kind.Unit != arrow.Nanosecond {
				return field.Name + " " + kind.String()
			}
		default:
			return field.Name + " " + kind.String()
		}
	}
	return "all"
}

func main() {
	address, password, process, transport := os.Args[1], os.Args[2], os.Args[3], insecure.NewCredentials()
	if len(os.Args) > 4 {
		transport = told.Must(credentials.NewClientTLSFromFile(os.Args[4], ""))
	}
	client := told.Must(flightsql.NewClient(address, nil, nil, grpc.WithTransportCredentials(transport)))
	defer client.Close()
	ctx := context.Background()
	if password != "" {
		ctx = told.Must(client.Client.AuthenticateBasicToken(ctx, "grafana", password))
		told.Tell("signed in", true)
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "x-client-type", "grafana", "x-org-id", "1",
		"x-user-id", "1", "x-user-email", "ann%40example.org", "x-user-name", "Ann%20%E2%98%83")

	records, _ := rows(ctx, client, told.Must(client.Execute(ctx, "select 1")))
	told.Tell("health", count(records))

	ranged := metadata.AppendToOutgoingContext(ctx, "query_range_begin", "2001-01-01T00:00:00.000000000Z",
		"query_range_end", "2100-01-01T00:00:00.123456789Z", "limit", "1000")
	sql := "SELECT time, level, target, msg, exe FROM log_entries WHERE process_id = '" + process + "'"
	records, schema := rows(ranged, client, told.Must(client.Execute(ranged, sql)))
	told.Tell("logs", count(records))
	told.Tell("readable", readable(schema))
	binned := "SELECT date_bin(interval '60 second', time, timestamp '1970-01-01T00:00:00Z') AS time_binned, count(*) AS n, " +
		"max(datepart('minute', time)) AS m FROM log_entries WHERE time >= cast('2001-01-01T00:00:00Z' as timestamp) GROUP BY 1"
	records, schema = rows(ranged, client, told.Must(client.Execute(ranged, binned)))
	told.Tell("binned", count(records) > 0)
	told.Tell("binned readable", readable(schema))
	few := metadata.AppendToOutgoingContext(ctx, "limit", "2")
	records, _ = rows(few, client, told.Must(client.Execute(few, sql)))
	told.Tell("limited", count(records))
	// messages over 4 MiB end its stream
	records, _ = rows(ctx, client, told.Must(client.Execute(ctx,
		"SELECT value, repeat('x', 1000) AS pad FROM generate_series(1, 20000)")))
	told.Tell("long", count(records))

	infos := told.Must(client.GetSqlInfo(ctx, []flightsql.SqlInfo{508, 509, 510, 511, 512}))
	records, _ = rows(ctx, client, infos)
	told.Tell("infos", count(records))
	tables := told.Must(client.GetTables(ctx, &flightsql.GetTablesOpts{TableTypes: []string{"BASE TABLE", "table"}}))
	records, _ = rows(ctx, client, tables)
	var names []string
	for _, record := range records {
		for i := 0; i < int(record.NumRows()); i++ {
			names = append(names, record.Column(2).(*array.String).Value(i))
		}
	}
	told.Tell("tables", strings.Join(names, " "))
	table := "log_entries"
	columns := told.Must(client.GetTables(ctx, &flightsql.GetTablesOpts{TableNameFilterPattern: &table, IncludeSchema: true}))
	records, _ = rows(ctx, client, columns)
	described := told.Must(flight.DeserializeSchema(records[0].Column(4).(*array.Binary).Value(0), nil))
	told.Tell("columns", len(described.Fields()))

	_, err := client.Execute(ctx, "SELECT nothing FROM log_entries")
	told.Tell("wrong", strings.ReplaceAll(fmt.Sprint(err), "\n", " "))
}
