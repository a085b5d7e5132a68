package etcdtopo_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/evenkeel-go/evenkeel/shard/etcdtopo"
)

type failing struct{ *member }

func (failing) Txn(context.Context) clientv3.Txn { return failedTxn{} }

type failedTxn struct{}

var errLost = errors.New("etcdserver: request timed out")

func (t failedTxn) If(...clientv3.Cmp) clientv3.Txn        { return t }
func (t failedTxn) Then(...clientv3.Op) clientv3.Txn       { return t }
func (t failedTxn) Else(...clientv3.Op) clientv3.Txn       { return t }
func (t failedTxn) Commit() (*clientv3.TxnResponse, error) { return nil, errLost }

// After a failed transaction Publish does not wait for ever to look what became of it.
func TestPublishEndsWhenEtcdIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gets := 0
		m := failing{&member{get: func(ctx context.Context, _ clientv3.Op) (*clientv3.GetResponse, error) {
			if gets++; gets == 1 {
				return holds(41, nil)
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}}}
		s, err := etcdtopo.New(&clientv3.Client{KV: m, Watcher: m}, "shards")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Publish(context.Background(), mapOf(t, 1)); !errors.Is(err, errLost) {
			t.Fatal(err)
		}
	})
}
