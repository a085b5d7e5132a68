// Package topo keeps the shard map of a keyspace where all processes find it, and
// tells them of a new one: a SQL table, a file, and a local copy for the times when
// the place is down. Modules beside it add etcd (etcdtopo) and PostgreSQL's
// notifications (pgxtopo).
//
//	table, err := topo.NewTable(db, topo.PostgreSQL, topo.TableOptions{})
//	...
//	file, err := topo.NewFile("/var/lib/app/shards.json", topo.FileOptions{})
//	...
//	source, err := topo.NewCached(table, file, topo.CachedOptions{})
//	...
//	go router.Follow(ctx, source)
//
// # The problem
//
// Every process must route by one map, and learn of its successor within about a second.
// A second writer must not undo the first, a map that is half written or mistyped must
// not route anything, and a database that is down must not keep services from
// starting: the map is needed for every call, and changes once a week.
//
// # The idea
//
// A [Store] holds one document for each keyspace, the JSON of [shard.Map.MarshalJSON].
// [Store.Publish] compares and sets inside the store: epochs rise, and one of two
// writers of the same epoch loses, and is told. Watch yields the newest map and each
// newer one. What is wrong, an outage or content that is no map, is an error between
// the maps: the watcher keeps the map that it has.
//
// [Cached] puts a file before a source: what the source said last is there when the
// process starts without it.
//
// # Which to take
//
//   - [Table] if there is a database anyway. Its watchers poll, by a query that reads one
//     small row; with pgxtopo PostgreSQL tells them at once, and polls may be rare.
//   - etcdtopo if there is an etcd: a watch a process, and no polling.
//   - [File] for one machine, for tests, and where something else distributes files.
//   - [Cached] around any of them, in every service.
//
// # What it does not do
//
// It does not say when data may move: publish a map when the shards are ready for it.
// Processes learn of it at different times, so a shard must refuse keys that it no
// longer owns ([shard.ErrStaleMap]); the router then loads the map and tries again.
//
// Sources: Vitess's topology server, Figma's topology that reaches every proxy within a
// second (2024), and Segment's ctlstore, a local copy of what every request needs.
package topo
