package etcdtopo

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/internal/feed"
	"github.com/evenkeel-go/evenkeel/shard/topo"
)

// A Store is a [topo.Store] under one key of etcd. It must be created by [New].
//
// A Store is safe for concurrent use by multiple goroutines.
type Store struct {
	client *clientv3.Client
	key    string
}

var _ topo.Store = (*Store)(nil)

// New returns a Store under the key, and uses client, which stays the caller's to close.
// It does not ask etcd. Returns an error if client is nil, was not made by clientv3.New, or
// key is empty.
func New(client *clientv3.Client, key string) (*Store, error) {
	switch {
	case key == "":
		return nil, errors.New("etcdtopo: key is empty, expected one of etcd's")
	case client == nil || client.KV == nil || client.Watcher == nil:
		return nil, errors.New("etcdtopo: client is nil or has no connection, expected one of clientv3.New")
	}
	return &Store{client: client, key: key}, nil
}

// Load reads the map, and asks a majority of the members. Returns an error that wraps
// [topo.ErrNoMap] if there is no key, one that wraps [shard.ErrBadMap] and names the
// key if its value is no map, and the error of the client if etcd does not answer, for
// which the client waits until ctx ends.
func (s *Store) Load(ctx context.Context) (*shard.Map, error) {
	r, err := s.get(ctx)
	if err != nil {
		return nil, fmt.Errorf("etcdtopo: load from key %s: %w", s.key, err)
	}
	text := textOf(r)
	if text == nil {
		return nil, fmt.Errorf("%w in etcd key %s", topo.ErrNoMap, s.key)
	}
	return s.decode(text)
}

// Publish is that of [topo.Store]: a transaction that puts the value if the key is still
// at the revision at which it was read. It takes two round trips, and two more for each
// publisher that came between. A value that is no map is replaced, but not a document
// of a later version whose epoch is not lower ([shard.ErrStaleMap]).
func (s *Store) Publish(ctx context.Context, m *shard.Map) error {
	text, err := feed.Encode(m)
	for done := false; err == nil && !done; {
		done, err = s.publish(ctx, m, text)
	}
	if err != nil {
		return fmt.Errorf("etcdtopo: publish in key %s: %w", s.key, err)
	}
	return nil
}

// publish is one try. It reports that m is in etcd, or returns why it must not or cannot be.
func (s *Store) publish(ctx context.Context, m *shard.Map, text []byte) (bool, error) {
	r, err := s.get(ctx)
	if err != nil {
		return false, err
	}
	revision := int64(0) // that of no key
	if len(r.Kvs) > 0 {
		revision = r.Kvs[0].ModRevision
		if old, err := feed.Decode(r.Kvs[0].Value); err == nil {
			if newer, err := m.Supersedes(old); !newer {
				return true, err
			}
		} else if err := feed.Ahead(r.Kvs[0].Value, m); err != nil {
			return false, err
		}
	}
	put, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(s.key), "=", revision)).
		Then(clientv3.OpPut(s.key, string(text))).
		Commit()
	if err != nil {
		// It may have been made all the same.
		asking, done := context.WithTimeout(ctx, askTimeout)
		defer done()
		if r, lost := s.get(asking); lost == nil && bytes.Equal(textOf(r), text) {
			return true, nil
		}
		return false, withContext(ctx, err)
	}
	return put.Succeeded, nil
}

func (s *Store) get(ctx context.Context) (*clientv3.GetResponse, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := s.client.Get(ctx, s.key)
	return r, withContext(ctx, err)
}

// withContext adds that ctx has ended to an error that does not say so.
func withContext(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return err
}

// textOf is the value that was got, and nil if there is no key.
func textOf(r *clientv3.GetResponse) []byte {
	if len(r.Kvs) == 0 {
		return nil
	}
	return valueOf(r.Kvs[0])
}

// valueOf is not nil for an empty value.
func valueOf(kv *mvccpb.KeyValue) []byte {
	if kv.Value == nil {
		return []byte{}
	}
	return kv.Value
}

func (s *Store) decode(text []byte) (*shard.Map, error) {
	m, err := feed.Decode(text)
	if err != nil {
		return nil, fmt.Errorf("etcdtopo: key %s: %w", s.key, err)
	}
	return m, nil
}
