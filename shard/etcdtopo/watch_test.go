package etcdtopo_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/etcdtopo"
	"github.com/evenkeel-go/evenkeel/shard/topo"
)

// member is an etcd of one key whose answers are functions, in a bubble.
type member struct {
	clientv3.KV
	clientv3.Watcher
	get   func(ctx context.Context, op clientv3.Op) (*clientv3.GetResponse, error)
	watch func(ctx context.Context, op clientv3.Op) clientv3.WatchChan
}

func (m *member) Get(ctx context.Context, key string, o ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	return m.get(ctx, clientv3.OpGet(key, o...))
}

func (m *member) Watch(ctx context.Context, key string, o ...clientv3.OpOption) clientv3.WatchChan {
	return m.watch(ctx, clientv3.OpGet(key, o...))
}

func holds(revision int64, m *shard.Map) (*clientv3.GetResponse, error) {
	r := &clientv3.GetResponse{Header: &pb.ResponseHeader{Revision: revision}}
	if m != nil {
		text, err := m.MarshalJSON()
		if err != nil {
			return nil, err
		}
		r.Kvs = append(r.Kvs, &mvccpb.KeyValue{Value: text, ModRevision: revision})
	}
	return r, nil
}

func silent(context.Context, clientv3.Op) clientv3.WatchChan {
	return make(chan clientv3.WatchResponse)
}

func mapOf(t *testing.T, epoch uint64) *shard.Map {
	m, err := shard.NewMap(epoch, shard.Shard{Node: "db"})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func watchFor(t *testing.T, m *member, d time.Duration) (epochs []uint64, told []error) {
	s, err := etcdtopo.New(&clientv3.Client{KV: m, Watcher: m}, "shards")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	for m, err := range s.Watch(ctx) {
		if err != nil {
			told = append(told, err)
		} else {
			epochs = append(epochs, m.Epoch())
		}
	}
	return epochs, told
}

// A watch asks a majority, watches from the next revision on, and requires a leader.
func TestWatchAsksRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &member{get: func(_ context.Context, op clientv3.Op) (*clientv3.GetResponse, error) {
			if op.IsSerializable() {
				t.Error("the reading may be stale")
			}
			return holds(41, mapOf(t, 1))
		}}
		watches := 0
		m.watch = func(ctx context.Context, op clientv3.Op) clientv3.WatchChan {
			watches++
			if op.Rev() != 42 {
				t.Errorf("it watches from revision %d", op.Rev())
			}
			md, _ := metadata.FromOutgoingContext(ctx)
			if got := md.Get(rpctypes.MetadataRequireLeaderKey); len(got) != 1 {
				t.Errorf("it requires no leader: %v", md)
			}
			return silent(ctx, op)
		}
		epochs, told := watchFor(t, m, 30*time.Second)
		if len(epochs) != 1 || len(told) > 0 || watches != 1 {
			t.Errorf("%v, %v, %d watches", epochs, told, watches)
		}
	})
}

// What a silent watch does not tell is read within 75 s.
func TestWatchReadsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		m := &member{watch: silent, get: func(context.Context, clientv3.Op) (*clientv3.GetResponse, error) {
			return holds(41, mapOf(t, 1+uint64(time.Since(start)/time.Second)))
		}}
		epochs, told := watchFor(t, m, 10*time.Minute)
		if len(epochs) < 8 || len(epochs) > 14 || len(told) > 0 {
			t.Errorf("%v, %v", epochs, told)
		}
	})
}

// An etcd that does not answer, be it the reading or the watch, is told within 10 s.
func TestWatchOfASilentEtcd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &member{watch: silent, get: func(ctx context.Context, _ clientv3.Op) (*clientv3.GetResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		if _, told := watchFor(t, m, time.Minute); len(told) < 3 || !errors.Is(told[0], context.DeadlineExceeded) {
			t.Errorf("%v", told)
		}
		m.get = func(context.Context, clientv3.Op) (*clientv3.GetResponse, error) { return holds(41, nil) }
		m.watch = func(ctx context.Context, _ clientv3.Op) clientv3.WatchChan {
			<-ctx.Done()
			c := make(chan clientv3.WatchResponse)
			close(c)
			return c
		}
		if _, told := watchFor(t, m, time.Minute); len(told) < 4 || !errors.Is(told[0], topo.ErrNoMap) {
			t.Errorf("%v", told)
		}
	})
}

// What etcd says when it ends a watch is told, but for a compaction.
func TestWatchTellsWhyItBroke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, compacted := range []int64{0, 100} {
			watches := 0
			m := &member{get: func(context.Context, clientv3.Op) (*clientv3.GetResponse, error) { return holds(41, mapOf(t, 1)) }}
			m.watch = func(ctx context.Context, op clientv3.Op) clientv3.WatchChan {
				if watches++; watches > 1 {
					return silent(ctx, op)
				}
				c := make(chan clientv3.WatchResponse, 1)
				c <- clientv3.WatchResponse{Canceled: true, CompactRevision: compacted}
				return c
			}
			epochs, told := watchFor(t, m, 30*time.Second)
			if len(epochs) != 1 || (len(told) == 0) != (compacted > 0) || watches != 2 {
				t.Errorf("%v, %v, %d watches", epochs, told, watches)
			}
		}
	})
}
