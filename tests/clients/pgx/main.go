// What Go programs and Grafana do with a PostgreSQL, through pgx and lib/pq, told a line each: name, tab, value.
// Arguments: connection string and process of the logs.
package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/lib/pq"
)

const own = "SELECT count(*) FROM log_entries WHERE process_id = $1"

func tell(name string, value any) { fmt.Printf("%s\t%v\n", name, value) }

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func one(ctx context.Context, connection *pgx.Conn, query string, arguments ...any) (count int64) {
	check(connection.QueryRow(ctx, query, arguments...).Scan(&count))
	return count
}

func state(err error) string {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return refused.Code
	}
	return fmt.Sprint(err)
}

func ask(ctx context.Context, address string, mode pgx.QueryExecMode, process string) {
	config, err := pgx.ParseConfig(address)
	check(err)
	config.DefaultQueryExecMode = mode
	connection, err := pgx.ConnectConfig(ctx, config)
	check(err)
	defer connection.Close(ctx)
	name := func(what string) string { return fmt.Sprintf("%s %s", what, mode) }
	for range 3 {
		tell(name("logs"), one(ctx, connection, own, process))
	}
	tell(name("since"), one(ctx, connection, own+" AND time > $2 AND level >= $3", process, time.Unix(0, 0), 0))
	tell(name("any"), one(ctx, connection, own+" AND msg = ANY($2)", process, []string{"hello", "NULL", "{,}"}))
	tell(name("levels"), one(ctx, connection, own+" AND level = ANY($2)", process, []int32{0, 1, 2, 3, 4, 5, 6}))

	var yes bool
	var number int64
	var half float64
	var text string
	var nothing *string
	var moment time.Time
	var list []string
	var properties map[string]any
	query := "SELECT true, arrow_cast(7, 'Int64'), 2.5, 'ü☃', arrow_cast(NULL, 'Utf8'), time, make_array('a', 'b c'), properties FROM log_entries LIMIT 1"
	check(connection.QueryRow(ctx, query).Scan(&yes, &number, &half, &text, &nothing, &moment, &list, &properties))
	tell(name("types"), strings.TrimSpace(fmt.Sprintln(yes, number, half, text, nothing == nil, moment.Year() > 2000, list, properties != nil)))

	transaction, err := connection.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	check(err)
	_, err = transaction.Exec(ctx, "SET LOCAL micromegas.range_end = '2000-01-01'")
	check(err)
	tell(name("ranged"), one(ctx, connection, own, process))
	inner, err := transaction.Begin(ctx)
	check(err)
	_, err = inner.Exec(ctx, "SELECT nosuch FROM log_entries")
	tell(name("unknown column"), state(err))
	check(inner.Rollback(ctx))
	check(transaction.Commit(ctx))
	tell(name("after"), one(ctx, connection, own, process))
	_, err = connection.Exec(ctx, "DELETE FROM log_entries")
	tell(name("delete"), state(err))
	tell(name("catalogue"), one(ctx, connection, "SELECT count(*) FROM information_schema.columns WHERE table_name = $1", "log_entries"))
}

func batches(ctx context.Context, address, process string) {
	connection, err := pgx.Connect(ctx, address)
	check(err)
	defer connection.Close(ctx)
	batch := &pgx.Batch{}
	var counts []int64
	for range 3 {
		batch.Queue(own, process).QueryRow(func(row pgx.Row) error {
			var count int64
			err := row.Scan(&count)
			counts = append(counts, count)
			return err
		})
	}
	check(connection.SendBatch(ctx, batch).Close())
	tell("batch", counts)
	var copied bytes.Buffer
	tag, err := connection.PgConn().CopyTo(ctx, &copied, "COPY (SELECT msg, level FROM log_entries) TO STDOUT (FORMAT binary)")
	check(err)
	tell("copied", fmt.Sprint(tag.RowsAffected() > 0, bytes.HasPrefix(copied.Bytes(), []byte("PGCOPY\n"))))
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	_, err = connection.Exec(short, "SELECT count(*) FROM log_entries a, log_entries b, log_entries c, log_entries d, log_entries e, log_entries f, log_entries g, log_entries h, log_entries i, log_entries j, log_entries k, log_entries l")
	tell("cancelled", errors.Is(err, context.DeadlineExceeded))
}

func older(ctx context.Context, address, process string) {
	database, err := sql.Open("postgres", address+"?sslmode=disable")
	check(err)
	defer database.Close()
	statement, err := database.PrepareContext(ctx, own+" AND time BETWEEN $2 AND $3")
	check(err)
	var count int64
	check(statement.QueryRowContext(ctx, process, time.Unix(0, 0), time.Unix(4_000_000_000, 0)).Scan(&count))
	tell("lib/pq", count)
	var version string
	check(database.QueryRowContext(ctx, "SHOW server_version").Scan(&version))
	tell("lib/pq version", version != "")
	transaction, err := database.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	check(err)
	check(transaction.QueryRowContext(ctx, own, process).Scan(&count))
	check(transaction.Rollback())
	tell("lib/pq in a transaction", count)
}

func main() {
	ctx := context.Background()
	address, process := os.Args[1], os.Args[2]
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement,
		pgx.QueryExecModeCacheDescribe,
		pgx.QueryExecModeDescribeExec,
		pgx.QueryExecModeExec,
		pgx.QueryExecModeSimpleProtocol,
	} {
		ask(ctx, address, mode, process)
	}
	batches(ctx, address, process)
	older(ctx, address, process)
}
