package main

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// maxPage is the most messages in a page, and what every flight reads: callers who
// want fewer share it all the same.
const maxPage = 100

// Filter says which messages a read wants: the newest Limit ones with an ID below
// Before, of one channel or of all, that contain a text.
type Filter struct {
	Channel string // empty means all
	Text    string
	Before  int64 // 0 means from the newest
	Limit   int
}

// sql is the filter as the end of a SELECT.
func (f Filter) sql() (string, []any) {
	before := f.Before
	if before == 0 {
		before = math.MaxInt64
	}
	where, args := "WHERE id < ?", []any{before}
	if f.Channel != "" {
		where, args = where+" AND channel = ?", append(args, f.Channel)
	}
	if f.Text != "" {
		like := "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(f.Text) + "%"
		where, args = where+` AND text LIKE ? ESCAPE '\'`, append(args, like)
	}
	return where + " ORDER BY id DESC LIMIT ?", append(args, f.Limit)
}

// Reader is the read side of the service: which shard to ask, which replica of it,
// and whether anybody asks the same already.
type Reader struct {
	shards   *shard.Map
	switches *Switches
	p2c      *balance.Balancer[*Replica]
	robin    *balance.Balancer[*Replica] // what runs with the balance switch off
	group    coalesce.Group[pageKey, []Message]

	pages     atomic.Int64 // channel pages that callers asked for
	loads     atomic.Int64 // of those, the ones that went to the database
	asked     atomic.Int64 // shards that these loads asked
	latencies histogram
}

// pageKey names a page. Everybody may read every channel; where that is not so,
// the key must hold what the answer depends on.
type pageKey struct {
	channel string
	before  int64
}

// NewReader returns a reader of the store's shards through the replicas.
func NewReader(s *Store, replicas []*Replica, switches *Switches) (*Reader, error) {
	r := &Reader{shards: s.shards, switches: switches}
	backends := make([]balance.Backend[*Replica], len(replicas))
	for i, rep := range replicas {
		backends[i] = balance.Backend[*Replica]{ID: rep.Name, Value: rep}
	}
	balancer := func(strategy balance.Strategy) (*balance.Balancer[*Replica], error) {
		b, err := balance.New[*Replica](strategy, balance.Options{})
		if err != nil {
			return nil, err
		}
		return b, b.Update(backends)
	}
	var err1, err2 error
	r.p2c, err1 = balancer(balance.LeastRequest(balance.LeastRequestOptions{}))
	r.robin, err2 = balancer(balance.RoundRobin())
	return r, errors.Join(err1, err2)
}

// Page returns messages of a channel, the newest first. Callers who ask for one
// page at the same time share one read of it.
//
// pattern: coalesce
func (r *Reader) Page(ctx context.Context, channel string, before int64, limit int) ([]Message, error) {
	r.pages.Add(1)
	load := func(ctx context.Context) ([]Message, error) { return r.load(ctx, channel, before) }
	var page []Message
	var err error
	if r.switches.Coalesce.Load() {
		page, err = r.group.Do(ctx, pageKey{channel, before}, load)
	} else {
		page, err = load(ctx)
	}
	return page[:min(limit, len(page))], err // shared with others: shortened, never changed
}

// Wrote makes the next read of a channel's newest page start after the write, so
// that a writer who reads at once sees the message and does not join a read that
// began before it.
func (r *Reader) Wrote(channel string) { r.group.Forget(pageKey{channel: channel}) }

// load reads a page of a channel from the one shard that holds it. Without the
// shard map it would have to ask them all, as it does when the switch is off.
func (r *Reader) load(ctx context.Context, channel string, before int64) ([]Message, error) {
	r.loads.Add(1)
	f := Filter{Channel: channel, Before: before, Limit: maxPage}
	if !r.switches.Shard.Load() {
		r.asked.Add(int64(r.shards.Len()))
		return r.Search(ctx, f)
	}
	r.asked.Add(1)
	return r.query(ctx, r.shards.Lookup(shard.XXHash(channel)), f)
}

// Search asks every shard for its newest matches and merges them, the newest
// first.
func (r *Reader) Search(ctx context.Context, f Filter) ([]Message, error) {
	found, err := gather.Scatter(ctx, r.shards.All(), func(ctx context.Context, s *shard.Shard) ([]Message, error) {
		return r.query(ctx, s, f)
	}, gather.Options{})
	if err != nil {
		return nil, err
	}
	var streams []iter.Seq2[Message, error]
	for _, shardRows := range found.Results {
		streams = append(streams, gather.Rows(shardRows.Value))
	}
	newestFirst := func(a, b Message) int { return cmp.Compare(b.ID, a.ID) }
	page := make([]Message, 0, f.Limit)
	for m, err := range gather.Merge(newestFirst, streams...) {
		if err != nil {
			return nil, err
		}
		if page = append(page, m); len(page) == f.Limit {
			break
		}
	}
	return page, nil
}

// query asks one shard, on the replica with the fewest queries under way: of two
// drawn at random when there are many, of all when there are as few as here.
//
// pattern: balance
func (r *Reader) query(ctx context.Context, s *shard.Shard, f Filter) (page []Message, err error) {
	b := r.robin
	if r.switches.Balance.Load() {
		b = r.p2c
	}
	started := time.Now()
	err = b.Do(ctx, func(ctx context.Context, replica *Replica) (err error) {
		page, err = replica.Query(ctx, s, f)
		return err
	})
	r.latencies.add(time.Since(started))
	return page, err
}
