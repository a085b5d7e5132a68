package shard_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// A channel's shard moves while a client still has the old map. The shard's own fence
// refuses the write, and Do repeats it with the new map.
func ExampleRouter_Do() {
	m, _ := shard.NewMap(1, shard.Shard{Node: "db1"})
	open := func(node string) (string, error) { return node + ".example.com:5432", nil }
	router, err := shard.NewRouter(shard.XXHash, m, open, shard.RouterOptions[string]{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fence := uint64(2) // what the database of db1 says: the shard was given up in epoch 2
	err = router.Do(context.Background(), "channel:42", func(_ context.Context, t shard.Target[string]) error {
		if t.Epoch < fence {
			fmt.Println("refused by", t.Node)
			next, _ := m.Move("-", "db2") // meanwhile the new map arrives, as by Follow
			_ = router.Update(next)
			return &shard.StaleError{Epoch: fence}
		}
		fmt.Println("written to", t.Node, "in epoch", t.Epoch)
		return nil
	})
	fmt.Println(err)
	// Output:
	// refused by db1.example.com:5432
	// written to db2.example.com:5432 in epoch 2
	// <nil>
}

// A count over all shards, by one map: if a shard refuses it as stale, the whole is
// repeated by the newer one.
func ExampleRouter_DoAll() {
	ranges, _ := shard.EvenRanges(4)
	shards := make([]shard.Shard, len(ranges))
	for i, r := range ranges {
		shards[i] = shard.Shard{Range: r, Node: fmt.Sprint("db", i%2)}
	}
	m, _ := shard.NewMap(1, shards...)
	rows := map[string]int{"db0": 10, "db1": 20} // of each shard there
	router, _ := shard.NewRouter(shard.XXHash, m, func(node string) (int, error) { return rows[node], nil }, shard.RouterOptions[int]{})

	var total int64
	err := router.DoAll(context.Background(), func(ctx context.Context, all shard.Snapshot[int]) (err error) {
		total, _, err = gather.Aggregate(ctx, all.Map().All(), gather.Count(), func(_ context.Context, s *shard.Shard) (int64, error) {
			db, _ := all.Node(s.Node)
			return int64(db), nil // SELECT count(*) … WHERE the point is in s.Range
		}, gather.Options{})
		return err
	})
	fmt.Println(total, err)
	// Output:
	// 60 <nil>
}

// Two coordinators that do not know of each other publish the same epoch.
func ExampleRouter_Update() {
	m, _ := shard.NewMap(1, shard.Shard{Node: "db1"})
	open := func(node string) (string, error) {
		if node == "db9" {
			return "", errors.New("no such host")
		}
		return node, nil
	}
	router, _ := shard.NewRouter(shard.XXHash, m, open, shard.RouterOptions[string]{})
	second, _ := m.Move("-", "db2")
	other, _ := m.Move("-", "db3")
	wrong, _ := second.Move("-", "db9")
	fmt.Println(router.Update(second))
	fmt.Println(errors.Is(router.Update(other), shard.ErrSplitBrain))
	fmt.Println(router.Update(m))
	fmt.Println(router.Update(wrong))
	fmt.Println(router.Route("channel:42").Node)
	// Output:
	// <nil>
	// true
	// shard: stale map: epoch 1, expected 2 or later
	// shard: unknown node "db9" of shard "-" in the map of epoch 3: no such host
	// db2
}

// Which calls of a service would one shard answer, if its data were on four shards of two
// nodes?
func ExampleRouter_Shadow() {
	inUse, _ := shard.NewMap(1, shard.Shard{Node: "db1"})
	router, _ := shard.NewRouter(shard.XXHash, inUse, func(node string) (string, error) { return node, nil }, shard.RouterOptions[string]{})
	ranges, _ := shard.EvenRanges(4)
	next, _ := shard.NewMap(2,
		shard.Shard{Range: ranges[0], Node: "db1"}, shard.Shard{Range: ranges[1], Node: "db1"},
		shard.Shard{Range: ranges[2], Node: "db2"}, shard.Shard{Range: ranges[3], Node: "db2"})
	shadow, err := router.Shadow(next)
	if err != nil {
		fmt.Println(err)
		return
	}
	for i := range 100 { // beside the service's own queries
		channel := fmt.Sprint("channel:", i)
		shadow.Call("read channel", channel)
		shadow.Call("move message", channel, fmt.Sprint("channel:", i+1))
	}
	shadow.Call("count users") // no key: everything
	for name, s := range shadow.Report() {
		fmt.Printf("%-12s single-shard %d, same-node %d, scatter %d\n", name, s.SingleShard, s.SameNode, s.Scatter)
	}
	// Output:
	// count users  single-shard 0, same-node 0, scatter 1
	// move message single-shard 23, same-node 24, scatter 53
	// read channel single-shard 100, same-node 0, scatter 0
}
