// What programs do with PostgreSQL's JDBC driver; each line that is printed is checked by test_jdbc.py.

import java.sql.Array;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.time.OffsetDateTime;
import java.util.Properties;

class JdbcProbe {
    static final String OWN = "SELECT msg FROM log_entries WHERE process_id = ? ORDER BY time";

    public static void main(String[] arguments) throws Exception {
        String process = arguments[1];
        Properties properties = new Properties();
        properties.setProperty("user", "anybody");
        properties.setProperty("password", "");
        // binary transfer from the second execution on
        properties.setProperty("prepareThreshold", "2");
        try (Connection connection = DriverManager.getConnection(arguments[0], properties)) {
            System.out.println("valid " + connection.isValid(10));
            prepared(connection, process);
            types(connection);
            fetchSize(connection, process);
            metadata(connection.getMetaData());
            errors(connection);
        }
    }

    static void prepared(Connection connection, String process) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(OWN)) {
            for (int round = 0; round < 5; round++) {
                statement.setString(1, process);
                int count = 0;
                try (ResultSet rows = statement.executeQuery()) {
                    while (rows.next()) {
                        count++;
                    }
                }
                System.out.println("prepared " + count);
            }
        }
        String some = "SELECT count(*) FROM log_entries WHERE time > ? AND level >= ? AND level = ANY (?) AND msg <> ?";
        try (PreparedStatement statement = connection.prepareStatement(some)) {
            Array levels = connection.createArrayOf("int4", new Integer[] {0, 1, 2, 3, 4, 5, 6});
            for (int round = 0; round < 3; round++) {
                statement.setTimestamp(1, Timestamp.valueOf("2000-01-01 00:00:00"));
                statement.setInt(2, 0);
                statement.setArray(3, levels);
                statement.setString(4, "MiXed");
                try (ResultSet rows = statement.executeQuery()) {
                    rows.next();
                    System.out.println("filtered " + (rows.getLong(1) > 0));
                }
            }
        }
    }

    static void types(Connection connection) throws SQLException {
        String sql = "SELECT time, level, msg, properties, time < now() + INTERVAL '100 years', 1.5::double precision,"
            + " make_array('a', NULL), 'MiXed' FROM log_entries ORDER BY time LIMIT 1";
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int round = 0; round < 4; round++) {
                try (ResultSet rows = statement.executeQuery()) {
                    rows.next();
                    System.out.println("types " + (rows.getObject(1, OffsetDateTime.class).getYear() > 2000) + " "
                        + (rows.getInt(2) >= 0) + " " + (rows.getString(4).startsWith("{")) + " " + rows.getBoolean(5) + " "
                        + rows.getDouble(6) + " " + rows.getArray(7) + " " + rows.getString(8) + " "
                        + rows.getMetaData().getColumnTypeName(1));
                }
            }
        }
    }

    static void fetchSize(Connection connection, String process) throws SQLException {
        connection.setAutoCommit(false);
        try (PreparedStatement statement = connection.prepareStatement(OWN)) {
            statement.setFetchSize(2);
            statement.setString(1, process);
            int count = 0;
            try (ResultSet rows = statement.executeQuery()) {
                while (rows.next()) {
                    count++;
                }
            }
            System.out.println("pieces " + count);
        }
        connection.commit();
        connection.setAutoCommit(true);
    }

    static void metadata(DatabaseMetaData metadata) throws SQLException {
        try (ResultSet rows = metadata.getTables(null, "public", "log%", new String[] {"TABLE"})) {
            while (rows.next()) {
                System.out.println("table " + rows.getString("TABLE_NAME") + " " + rows.getString("TABLE_TYPE"));
            }
        }
        try (ResultSet rows = metadata.getColumns(null, "public", "log_entries", "%")) {
            while (rows.next()) {
                System.out.println("column " + rows.getString("COLUMN_NAME") + " " + rows.getString("TYPE_NAME"));
            }
        }
        for (ResultSet rows : new ResultSet[] {
            metadata.getSchemas(), metadata.getCatalogs(), metadata.getPrimaryKeys(null, "public", "log_entries"),
            metadata.getIndexInfo(null, "public", "log_entries", false, false), metadata.getTypeInfo(),
            metadata.getImportedKeys(null, "public", "log_entries"), metadata.getFunctions(null, null, "lower")}) {
            int count = 0;
            while (rows.next()) {
                count++;
            }
            rows.close();
            System.out.println("listed " + (count >= 0));
        }
    }

    static void errors(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.executeQuery("SELECT nosuch FROM log_entries");
        } catch (SQLException error) {
            System.out.println("state " + error.getSQLState());
        }
        try (Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            statement.executeQuery("SELECT pg_sleep(60)");
        } catch (SQLException error) {
            System.out.println("state " + error.getSQLState());
        }
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery("SELECT 1")) {
            rows.next();
            System.out.println("still " + rows.getInt(1));
        }
    }
}
