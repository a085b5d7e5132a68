// Package mysql is the dialect of package outbox for MySQL and MariaDB. It is
// SQL text only and imports no driver; it is tested with
// github.com/go-sql-driver/mysql on MariaDB 10.11, and needs MySQL 8.0.14 or
// MariaDB 10.6, both with InnoDB.
//
// # How to open the database
//
//	app:secret@tcp(db.example:3306)/app?interpolateParams=true&innodb_lock_wait_timeout=5
//
// With interpolateParams the driver puts arguments into the text and needs one
// round trip a statement; otherwise it prepares each one first. The statements
// that read and acknowledge messages have no arguments and take one round trip
// either way. A short innodb_lock_wait_timeout lets a transaction that waits for
// a hanging one try again after seconds, not after the default of 50. On MariaDB
// add idle_transaction_timeout=5: the server then ends a session that hangs inside
// a transaction, whose locks would keep others from taking over the work of its
// process. MySQL has nothing of the kind; there such a process is succeeded when
// the server notices that its connection is dead (wait_timeout, TCP keepalive).
// Leave the
// character set at the driver's default, utf8mb4. The time zone of the session,
// parseTime, loc, clientFoundRows and sql_mode do not matter.
//
// The user of the drainer needs SELECT, INSERT, UPDATE and DELETE, and with
// outbox.Rotate also DROP, for TRUNCATE. Migrate needs CREATE. Statements larger
// than max_allowed_packet are refused, so it must be greater than
// Options.MaxPayload.
//
// The outbox runs its transactions at READ COMMITTED, which locks fewer rows.
// With a binary log, that needs binlog_format=ROW (the default of MySQL) or
// MIXED (that of MariaDB).
//
// # Clock
//
// All times are UTC_TIMESTAMP(6), the clock of the server at the beginning of a
// statement. It is not touched by time zones and the hour that comes twice in
// autumn. If the server's clock is set forward, leases may end early; then
// drainers take over from each other, and messages may be delivered twice.
//
// # Order
//
// Ids come from AUTO_INCREMENT. They are given when a message is added, not when
// it is committed, so a greater id may be visible before a smaller one. That is
// no matter between keys, and within a key the transactions exclude each other.
// The drainer therefore never reads behind the last id it has seen, but from the
// front, and leaves out what it has already. On PostgreSQL the outbox knows an
// exact mark below which nothing can come any more. Here it cannot: the server
// shows the newest id that was given, and the transactions of others, only to
// users with the privilege PROCESS, which an application should not have. So a
// transaction that keeps an old snapshot makes reading slower, as the server
// must keep the deleted rows for it: keep backups short, or take them from a
// replica.
//
// The order of ids is the server's, so all writers must use one server. Where
// several take writes, as in Galera and group replication with many primaries,
// auto_increment_increment and auto_increment_offset let each server give ids of
// its own, and two changes of one key that are made on two servers get theirs in
// either order: this is not supported. Let writers and drainers use the same
// server, the primary. After a failover to a replica that had not received
// everything, the messages of lost transactions are lost with them, and an id
// may be given again.
//
// # Names
//
// Topics and keys are compared byte by byte. Their columns are VARBINARY, since
// all text that MySQL and MariaDB have in common ignores spaces at the end. The
// bytes are UTF-8: to read them in a client, use CONVERT(topic USING utf8mb4).
//
// # Migrations
//
// CREATE TABLE commits the transaction it is in, so a version of the schema is
// not applied as a whole. Its statements can be repeated instead: by another
// process at the same time, or after one has failed halfway.
package mysql
