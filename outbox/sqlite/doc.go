// Package sqlite is the SQLite dialect of package outbox. It is SQL text only
// and imports no driver; it is tested with github.com/ncruces/go-sqlite3 and
// modernc.org/sqlite, and needs SQLite 3.42 (2023) or newer.
//
// # How to open the database
//
// Use a write-ahead log, a busy timeout and immediate transactions:
//
//	file:app.db?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_txlock=immediate
//
// Both drivers understand this name. WAL lets the drainer read while others
// write. The busy timeout makes a writer wait for the other, instead of failing.
// Immediate transactions matter most: SQLite's default transaction begins as a
// reader, and one that reads first and writes later fails at once with
// SQLITE_BUSY if anybody wrote in between, whatever the busy timeout. The
// statements of the outbox itself are safe either way, because each of its
// transactions writes first; the transactions of the application are not.
//
// Where transactions that only read should not wait for each other, use
// _txlock=deferred and begin those that write with [Begin]. It takes the write lock
// at once, and waits for it more fairly than SQLite does. An Add that fails
// because the lock is not to be had says so.
//
// # Clock and order
//
// SQLite runs in the process, so the clock of the database is the clock of the
// machine, with a precision of a millisecond. SQLite has one writer at a time,
// so ids grow in the order of commits. They come from AUTOINCREMENT and are
// never used twice, also after the newest message was deleted.
//
// One writer at a time also means that a second drainer would only wait for the
// first, so all keys are in one bucket: one drainer works, and others stand by.
//
// # Backups
//
// A file that is restored from a copy, such as a replica of Litestream, goes on
// from there: what was delivered since the copy is delivered again, and what was
// added since is lost with the changes that it announced. The numbers of ids go
// back with the file, so new messages may get ids that lost ones had.
//
// Do not put the file on a network file system: WAL needs shared memory, and
// the lease needs one clock.
package sqlite
