package etcdtopo_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/etcdtopo"
)

// fake is an etcd of one key.
type fake struct {
	clientv3.KV
	clientv3.Watcher
	gets, watches int
	revision      int64
	kv            *mvccpb.KeyValue
	watch         func(ctx context.Context) clientv3.WatchChan
	txn           func() (*clientv3.TxnResponse, error)
}

func (f *fake) Get(context.Context, string, ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	f.gets++
	r := &clientv3.GetResponse{Header: &pb.ResponseHeader{Revision: f.revision}}
	if f.kv != nil {
		r.Kvs = append(r.Kvs, f.kv)
	}
	return r, nil
}

func (f *fake) Watch(ctx context.Context, _ string, _ ...clientv3.OpOption) clientv3.WatchChan {
	f.watches++
	return f.watch(ctx)
}
func (f *fake) Txn(context.Context) clientv3.Txn { return fakeTxn{f} }

type fakeTxn struct{ f *fake }

func (t fakeTxn) If(...clientv3.Cmp) clientv3.Txn        { return t }
func (t fakeTxn) Then(...clientv3.Op) clientv3.Txn       { return t }
func (t fakeTxn) Else(...clientv3.Op) clientv3.Txn       { return t }
func (t fakeTxn) Commit() (*clientv3.TxnResponse, error) { return t.f.txn() }

func store(t *testing.T, f *fake) *etcdtopo.Store {
	s, err := etcdtopo.New(&clientv3.Client{KV: f, Watcher: f}, "shards")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func oneOf(r clientv3.WatchResponse) clientv3.WatchChan {
	c := make(chan clientv3.WatchResponse, 1)
	c <- r
	close(c)
	return c
}

// Members of two clusters behind one name, or a restore: Get answers, and every watch is
// "compacted". That is asked with pauses.
func TestWatchThatIsAlwaysCompactedDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{revision: 5}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		f.watch = func(context.Context) clientv3.WatchChan {
			if f.watches > 10_000 {
				cancel()
			}
			return oneOf(clientv3.WatchResponse{Canceled: true, CompactRevision: 100})
		}
		for range store(t, f).Watch(ctx) {
		}
		if f.gets > 1000 {
			t.Fatalf("%d readings within a minute", f.gets)
		}
	})
}

// Get answers, and the watch always breaks, as behind a proxy that passes no streams.
func TestWatchThatAlwaysBreaksBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{revision: 5}
		f.watch = func(context.Context) clientv3.WatchChan { c := make(chan clientv3.WatchResponse); close(c); return c }
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		told := 0
		for range store(t, f).Watch(ctx) {
			told++
		}
		if told > 60 {
			t.Fatalf("%d errors within a minute", told)
		}
	})
}

// A transaction that timed out may have been made all the same.
func TestPublishLooksWhatBecameOfATransaction(t *testing.T) {
	m, err := shard.NewMap(1, shard.Shard{Node: "db"})
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{revision: 5}
	f.txn = func() (*clientv3.TxnResponse, error) {
		text, _ := m.MarshalJSON()
		f.kv = &mvccpb.KeyValue{Key: []byte("shards"), Value: text, ModRevision: 6}
		return nil, errors.New("etcdserver: request timed out")
	}
	if err := store(t, f).Publish(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

// A process of an older version undoes nothing of a newer one.
func TestADocumentOfANewerVersionIsNotOverwritten(t *testing.T) {
	m, _ := shard.NewMap(3, shard.Shard{Node: "db"})
	f := &fake{revision: 5, kv: &mvccpb.KeyValue{Value: []byte(`{"version":2,"epoch":50}`), ModRevision: 4}}
	f.txn = func() (*clientv3.TxnResponse, error) { return &clientv3.TxnResponse{Succeeded: true}, nil }
	if err := store(t, f).Publish(t.Context(), m); err == nil {
		t.Fatal("overwritten")
	}
}

// A client that was made by hand has no connection.
func TestNewRefusesAClientWithoutAConnection(t *testing.T) {
	defer func() {
		if p := recover(); p != nil {
			t.Fatal("panic: ", p)
		}
	}()
	s, err := etcdtopo.New(new(clientv3.Client), "shards")
	if err == nil {
		_, _ = s.Load(t.Context())
	}
}
