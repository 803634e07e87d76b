// What Node programs do with a PostgreSQL, through node-postgres, told a line each: name, tab, value.
// Arguments: connection string and process of the logs.
"use strict";

const { Client, Pool } = require("pg");
const Cursor = require("pg-cursor");
const { to: copyTo } = require("pg-copy-streams");

const [address, process_id] = process.argv.slice(2);
const own = "SELECT msg FROM log_entries WHERE process_id = $1 ORDER BY time";

function tell(name, value) {
  console.log(`${name}\t${value}`);
}

async function refused(asking) {
  try {
    await asking;
  } catch (error) {
    return error.code;
  }
  return "none";
}

async function main() {
  const client = new Client({ connectionString: address });
  await client.connect();
  tell("logs", (await client.query(own, [process_id])).rowCount);
  for (let time = 0; time < 3; time += 1) {
    const named = { name: "own", text: own, values: [process_id], rowMode: "array" };
    tell(`named ${time}`, (await client.query(named)).rows[0]);
  }
  const since = "SELECT count(*)::int AS n FROM log_entries WHERE process_id = $1 AND time > $2 AND level = ANY($3)";
  tell("since", (await client.query(since, [process_id, new Date(0), [0, 1, 2, 3, 4, 5, 6]])).rows[0].n);
  const row = (
    await client.query(
      "SELECT true AS yes, 2.5 AS half, 'ü☃' AS text, NULL AS nothing, time, make_array('a', 'b c') AS list, properties FROM log_entries LIMIT 1",
    )
  ).rows[0];
  const kinds = [row.yes, row.half, row.text, row.nothing, row.time instanceof Date, row.list.join("+")];
  tell("types", [...kinds, typeof row.properties].join(" "));
  const results = await client.query("SELECT 1 AS a; SELECT count(*) FROM log_entries; SELECT 2 AS b");
  tell("several", results.map((each) => each.rowCount));
  await client.query("BEGIN");
  await client.query("SELECT set_config('micromegas.range_end', '2000-01-01', true)");
  tell("ranged", (await client.query(own, [process_id])).rowCount);
  tell("unknown column", await refused(client.query("SELECT nosuch FROM log_entries")));
  tell("failed", await refused(client.query("SELECT 1")));
  await client.query("ROLLBACK");
  const cursor = client.query(new Cursor(own, [process_id]));
  const pieces = [];
  for (let rows = await cursor.read(2); rows.length > 0; rows = await cursor.read(2)) {
    pieces.push(rows.length);
  }
  await cursor.close();
  tell("cursor", pieces);
  let bytes = 0;
  for await (const piece of client.query(copyTo("COPY (SELECT msg FROM log_entries) TO STDOUT"))) {
    bytes += piece.length;
  }
  tell("copied", bytes > 0);
  await client.query("SET statement_timeout = 100");
  const letters = [..."abcdefghijkl"].map((letter) => `log_entries ${letter}`).join(", ");
  tell("too long", await refused(client.query(`SELECT count(*) FROM ${letters}`)));
  tell("mismatch", await refused(client.query(own, [process_id, 2])));
  tell("no number", await refused(client.query("SELECT 1 FROM log_entries WHERE level = $1", ["no number"])));
  await client.end();

  const pool = new Pool({ connectionString: address, max: 4 });
  const counts = await Promise.all(Array.from({ length: 16 }, () => pool.query(own, [process_id])));
  tell("pool", new Set(counts.map((each) => each.rowCount)).size);
  await pool.end();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
