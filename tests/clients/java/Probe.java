import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.TreeMap;

/** What programs do through JDBC, told a line each: name, tab, value. Arguments: address and process of the logs. */
public final class Probe {
    public static void main(String[] arguments) throws Exception {
        String url = arguments[0];
        String process = arguments[1];
        try (Connection connection = DriverManager.getConnection(url)) {
            try (Statement statement = connection.createStatement()) {
                everyType(statement);
                tell("logs", rows(statement.executeQuery(
                    "SELECT level, msg FROM log_entries WHERE process_id = '" + process + "' ORDER BY time, msg")).size());
                tell("views", rows(statement.executeQuery("SELECT * FROM blocks")).size());
                tell("wrong", failure(() -> statement.executeQuery("SELECT nothing FROM log_entries")));
                tell("update", failure(() -> statement.executeUpdate("DELETE FROM log_entries")));
            }
            try (PreparedStatement prepared = connection.prepareStatement(
                    "SELECT count(*) AS n FROM log_entries WHERE process_id = ? AND level <= ? AND time > ?")) {
                for (int level : new int[] {6, 2, 0}) {
                    prepared.setString(1, process);
                    prepared.setInt(2, level);
                    prepared.setTimestamp(3, new java.sql.Timestamp(0));
                    tell("level " + level, rows(prepared.executeQuery()));
                }
            }
            metadata(connection.getMetaData());
        }
        // Never closed: with a catalog in the address, this driver ends its channel before its session, and complains.
        Connection ranged = DriverManager.getConnection(url + "&query_range_end=2001-01-01T00:00:00Z&catalog=");
        try (Statement statement = ranged.createStatement()) {
            tell("ranged", rows(statement.executeQuery("SELECT count(*) AS n FROM log_entries")));
        }
        System.exit(0);
    }

    private static void everyType(Statement statement) throws SQLException {
        ResultSet row = statement.executeQuery(
            "SELECT 1 AS i, 2.5 AS f, 'ü☃' AS s, true AS b, CAST(NULL AS VARCHAR) AS nothing, "
            + "TIMESTAMP '2026-01-02T03:04:05.123456789Z' AS t, CAST('12.34' AS DECIMAL(10, 2)) AS d, "
            + "DATE '2026-01-02' AS day, arrow_cast('word', 'Dictionary(Int32, Utf8)') AS word, "
            + "arrow_cast('view', 'Utf8View') AS view, X'00FF' AS bytes");
        row.next();
        tell("types", row.getLong("i") + " " + row.getDouble("f") + " " + row.getString("s") + " " + row.getBoolean("b")
            + " " + row.getString("nothing") + " " + row.getTimestamp("t").getNanos() + " " + row.getBigDecimal("d")
            + " " + row.getDate("day") + " " + row.getString("word") + " " + row.getString("view")
            + " " + row.getBytes("bytes").length);
    }

    private static void metadata(DatabaseMetaData facts) throws Exception {
        tell("product", facts.getDatabaseProductName());
        tell("read only", facts.isReadOnly());
        tell("catalogs", rows(facts.getCatalogs()));
        tell("schemas", rows(facts.getSchemas()));
        tell("table types", rows(facts.getTableTypes()));
        tell("tables", column(facts.getTables(null, null, "%", new String[] {"table"}), "TABLE_NAME"));
        tell("l% tables", column(facts.getTables(null, null, "l%", null), "TABLE_NAME"));
        tell("columns", column(facts.getColumns(null, null, "log\\_entries", "%"), "COLUMN_NAME"));
        tell("keys", rows(facts.getPrimaryKeys(null, null, "processes")));
        tell("imported", rows(facts.getImportedKeys(null, null, "streams")));
        tell("exported", rows(facts.getExportedKeys(null, null, "streams")));
        tell("crossed", rows(facts.getCrossReference(null, null, "streams", null, null, "blocks")));
        TreeMap<String, String> failed = new TreeMap<>();
        int asked = 0;
        for (Method method : DatabaseMetaData.class.getMethods()) {
            if (method.getParameterCount() == 0) {
                asked++;
                try {
                    if (method.invoke(facts) instanceof ResultSet result) {
                        result.close();
                    }
                } catch (InvocationTargetException error) {
                    failed.put(method.getName(), String.valueOf(error.getCause()));
                }
            }
        }
        tell("getters", asked);
        tell("failed getters", failed);
    }

    private interface Attempt {
        Object make() throws SQLException;
    }

    private static String failure(Attempt attempt) {
        try {
            return "none: " + attempt.make();
        } catch (SQLException error) {
            return String.valueOf(error.getMessage()).replace("\n", " ").replace("\t", " ");
        }
    }

    private static List<List<String>> rows(ResultSet result) throws SQLException {
        List<List<String>> found = new ArrayList<>();
        try (result) {
            ResultSetMetaData columns = result.getMetaData();
            while (result.next()) {
                List<String> row = new ArrayList<>();
                for (int place = 1; place <= columns.getColumnCount(); place++) {
                    row.add(result.getString(place));
                }
                found.add(row);
            }
        }
        return found;
    }

    private static List<String> column(ResultSet result, String name) throws SQLException {
        List<String> found = new ArrayList<>();
        try (result) {
            while (result.next()) {
                found.add(result.getString(name));
            }
        }
        return found;
    }

    private static void tell(String name, Object value) {
        System.out.println(name + "\t" + value);
    }
}
