package topo_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/topo"
)

// A map in a file moves forward only: of two operators who both split the same map, the
// second is told.
func ExampleFile() {
	folder, err := os.MkdirTemp("", "topo")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	file, err := topo.NewFile(filepath.Join(folder, "shards.json"), topo.FileOptions{})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	first, _ := shard.NewMap(1, shard.Shard{Node: "db1"})
	fmt.Println("first:", file.Publish(ctx, first))

	split, _ := first.Split("-", 1<<63)
	moved, _ := split.Move("80-", "db2") // epoch 3
	fmt.Println("one operator:", file.Publish(ctx, moved))

	other, _ := first.Split("-", 1<<62) // epoch 2
	fmt.Println("another is late:", errors.Is(file.Publish(ctx, other), shard.ErrStaleMap))

	m, err := file.Load(ctx)
	fmt.Println(m.Epoch(), m.Lookup(1<<63).Node, err)
	// Output:
	// first: <nil>
	// one operator: <nil>
	// another is late: true
	// 3 db2 <nil>
}

// A process that starts while the source is down routes by the map in its file.
func ExampleCached() {
	folder, err := os.MkdirTemp("", "topo")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	file, err := topo.NewFile(filepath.Join(folder, "shards.json"), topo.FileOptions{})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	m, _ := shard.NewMap(7, shard.Shard{Node: "db1"})
	etcd := &server{m: m}

	// Yesterday: the source answers, and its map goes to the file.
	source, err := topo.NewCached(etcd, file, topo.CachedOptions{})
	if err != nil {
		panic(err)
	}
	m, err = source.Load(ctx)
	fmt.Println("epoch", m.Epoch(), err)

	// Today: the source is down. A watch says so, and has a map all the same.
	etcd.down = errors.New("connection refused")
	m, err = source.Load(ctx)
	fmt.Println("epoch", m.Epoch(), err)
	for m, err := range source.Watch(ctx) {
		if err != nil {
			fmt.Println("warning:", err)
			continue
		}
		fmt.Println("epoch", m.Epoch())
		break
	}
	// Output:
	// epoch 7 <nil>
	// epoch 7 <nil>
	// warning: connection refused
	// epoch 7
}

// server is a source that can be down.
type server struct {
	m    *shard.Map
	down error
}

func (s *server) Load(context.Context) (*shard.Map, error) { return s.m, s.down }

func (s *server) Watch(ctx context.Context) iter.Seq2[*shard.Map, error] {
	return func(yield func(*shard.Map, error) bool) {
		if s.down != nil && !yield(nil, s.down) || s.down == nil && !yield(s.m, nil) {
			return
		}
		<-ctx.Done()
	}
}
