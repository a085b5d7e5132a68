// Package etcdtopo keeps the shard map of a keyspace in etcd: a [topo.Store] whose
// watchers are told of a new map by etcd, without polling.
//
//	client, err := clientv3.New(clientv3.Config{
//		Endpoints:            endpoints,
//		DialKeepAliveTime:    10 * time.Second, // or a watch does not notice a dead network
//		DialKeepAliveTimeout: 5 * time.Second,
//	})
//	...
//	store, err := etcdtopo.New(client, "/app/shards")
//	...
//	go router.Follow(ctx, store)
//
// Put a [topo.Cached] around it, so that processes start while etcd is down.
//
// # How it works
//
// The key has one value, the document of [shard.Map.MarshalJSON], and etcd's own
// revision of the key is what Publish compares. A watch reads the key and then watches it
// from the revision after that reading, so that nothing is missed between them. It asks
// for a leader (clientv3.WithRequireLeader): a member that is cut off from the others
// ends it, and the client turns to another. After a compaction, and whenever a
// watch breaks, it reads the key again. It also does so once a minute: if etcd was
// restored from a backup, its revisions begin again below the watched one, and a watch
// would wait in silence until they have caught up.
//
// A value of etcd is at most 1.5 MB by default: maps of about 20,000 shards.
package etcdtopo
