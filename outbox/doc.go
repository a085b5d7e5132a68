// Package outbox sends messages about what a transaction changed: exactly those
// whose transaction committed, at least once each, and in order for each key,
// whichever process crashes when.
//
// # The problem
//
// A service changes its database and must tell somebody: a broker, a search
// index, a webhook, another service. There is no order of the two that is right.
//
//	tx.Commit()          // and then a crash:
//	broker.Send(event)   // nobody ever hears of the order
//
//	broker.Send(event)   // and then
//	tx.Commit()          // a rollback: everybody heard of an order that is not
//
// Sending inside the transaction is the second one, and holds locks for as long
// as the broker takes.
//
// # The idea
//
// Write the message into a table of the same database, in the same transaction:
// they commit or roll back together. A drainer reads the table, hands messages
// to their destination and deletes those that were accepted. If it crashes in
// between, it sends them again: at least once, never zero times. A consumer that
// must not act twice remembers [Message.ID].
//
// The pattern is known as transactional outbox, and as transactionally staged
// job drains. What is easy to get wrong is in the drainer:
//
//   - A drainer that remembers "everything up to id 41 is done" loses 40, if the
//     transaction of 40 commits after that of 41. This one deletes what it
//     delivered, and begins to read below every id that is not decided yet.
//   - A drainer that reads from the very front again and again is slow while an
//     old snapshot is held, by a backup for example, because the database must
//     keep what was deleted. On PostgreSQL a low watermark, which is exact, lets
//     it begin behind that; on SQLite the last id does.
//   - Two drainers that each take the next free rows deliver two changes of one
//     order in the wrong order. Here the keys are hashed into buckets, and each
//     bucket belongs to one drainer at a time.
//   - Order by the id of transactions, or by their time, is wrong: a transaction
//     may begin early and lock the order late. Order by the id of the message is
//     right, because it is given while the order is locked.
//   - A drainer that slept through its lease must not touch what its successor
//     works on. Every acknowledgement is fenced by the epoch of the lease, and
//     leases are measured by the clock of the database.
//   - A transaction that is open while the broker is slow holds locks and keeps
//     the database from cleaning up. None is open here while messages are
//     published.
//   - One message that always fails must neither stop everything, nor be
//     overtaken by its successors, nor be dropped. It parks its key; other keys
//     go on; after [Options.MaxAttempts] it moves to the dead messages, where
//     somebody can look at it and [Outbox.Replay] it.
//   - A destination that is slow, or has a long backlog, must not delay others.
//     Topics that are declared have queues of their own, which take turns by
//     weight; any topic can be paused.
//
// # How to use it
//
// Make an [Outbox] with the dialect of the database and call [Outbox.Migrate]
// once. In each transaction that has something to tell call [Outbox.Add], and
// after its commit [Outbox.Wake]. Give the [Publisher] to [Outbox.Run] in the
// background of every process:
//
//	box, err := outbox.New(postgres.Dialect{}, outbox.Options{})
//	…
//	err = box.Migrate(ctx, db)
//	…
//	go box.Run(ctx, db, publisher) // returns when ctx ends
//	…
//	tx, err := db.BeginTx(ctx, nil)
//	…                              // change what is to be changed
//	err = box.Add(ctx, tx, outbox.Message{Topic: "orders", Key: "order/42", Payload: event})
//	…
//	err = tx.Commit()
//	box.Wake()
//
// Run it in as many processes as you like: they share the keys, and take over from
// each other. Keep an eye on [Stats]: Oldest grows when messages do not get out,
// and Dead is work for a person; package admin shows both on a page.
//
// The dialects are the packages outbox/postgres, outbox/mysql and outbox/sqlite.
// Each says how to open its database.
//
// # Order
//
// Order is promised within a topic and key, for first deliveries. Take for a key the thing
// whose changes must not be mixed up, such as "order/42": the finer the keys, the
// less waits behind a failure, and the more fits into one call of the Publisher.
// Within a key the order is that of Add, if transactions that add for the same
// key exclude each other, for example because each updates the row of the order
// first. A repeated delivery may come after a later message, so a consumer that
// keeps the newest state compares versions rather than times of arrival.
//
// # When not to use it
//
// When losing a message now and then is fine, send it after the commit and be
// done. When consumers read the same database, let them read the tables. When
// the destination must take part in the transaction itself, this is the wrong
// tool: it makes the destination agree eventually, not at the same time. When
// many consumers want to read the same messages again and again, publish from
// here to a log such as Kafka. A message whose mere handling kills the process
// is tried again without end, because the attempt is written down after it.
//
// # Sources
//
// Brandur Leach, "Transactionally Staged Job Drains in Postgres" (2017). Chris
// Richardson, "Pattern: Transactional outbox", microservices.io. Marc Brooker,
// "Exponential Backoff And Jitter" (AWS, 2015). Martin Kleppmann, "How to do
// distributed locking" (2016), on fencing. Segment, "Introducing Centrifuge"
// (2018), on destinations that fail. M. Shreedhar and G. Varghese, "Efficient Fair
// Queueing using Deficit Round Robin" (SIGCOMM 1995). Marko Kreen, PgQ, on what a
// long transaction does to a queue.
package outbox
