// Package pgxtopo lets the watchers of a topo.Table on PostgreSQL know at once that a
// map was published: it listens, over pgx, to what Publish notifies.
//
//	config, err := pgx.ParseConfig(dsn)
//	...
//	listen, err := pgxtopo.Listen(config)
//	...
//	table, err := topo.NewTable(db, topo.PostgreSQL, topo.TableOptions{
//		Listen: listen, // and a poll a minute, for a notification that is lost
//	})
//
// Each watch takes a connection of its own, outside the pool of db, for as long as it
// runs. It must lead to the primary, and not through a pooler in transaction mode, such
// as PgBouncer's, behind which LISTEN is without effect: then only Poll finds new maps.
package pgxtopo
