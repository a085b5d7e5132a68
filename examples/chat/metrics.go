package main

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	sampleEvery = 250 * time.Millisecond
	rateOver    = 4 // samples that a rate looks back
)

// Sample is what the page shows at one moment. Rates are a second's.
type Sample struct {
	Seq      int64           `json:"seq"`
	Switches map[string]bool `json:"switches"`

	Coalesce struct {
		Reads   float64 `json:"reads"`   // channel pages asked for
		Queries float64 `json:"queries"` // of those, loaded from the database
		Percent float64 `json:"percent"` // queries for 100 reads
	} `json:"coalesce"`

	Shard struct {
		PerRead float64 `json:"perRead"` // shards that one load asked
		Rows    []int64 `json:"rows"`    // by shard
	} `json:"shard"`

	Outbox struct {
		Waiting int64 `json:"waiting"`
		Lost    int64 `json:"lost"`
	} `json:"outbox"`

	RateLimit struct {
		Offered  float64 `json:"offered"`
		Admitted float64 `json:"admitted"`
		Refused  float64 `json:"refused"`
	} `json:"ratelimit"`

	Balance struct {
		Share []float64 `json:"share"` // percent of the queries, by replica
		P90   float64   `json:"p90"`   // milliseconds
	} `json:"balance"`
}

// totals are the counters of the service at one moment.
type totals struct {
	at                   time.Time
	pages, loads, asked  int64
	offered, admitted    int64
	committed, delivered int64
	failed, first, lost  int64
	queries              []int64 // by replica
	latencies            counts
}

// Metrics turns the counters into samples.
type Metrics struct {
	app    *Main
	latest atomic.Pointer[Sample]
	past   []totals // the last rateOver+1
}

func (m *Metrics) totals() totals {
	a := m.app
	t := totals{
		at: time.Now(), pages: a.reader.pages.Load(), loads: a.reader.loads.Load(), asked: a.reader.asked.Load(),
		offered: a.api.offered.Load(), admitted: a.api.admitted.Load(), committed: a.api.committed.Load(),
		delivered: a.webhooks.delivered.Load(), failed: a.webhooks.failed.Load(), first: a.webhooks.first.Load(), lost: a.webhooks.lost.Load(),
		latencies: a.reader.latencies.snapshot(),
	}
	for _, r := range a.replicas {
		t.queries = append(t.queries, r.queries.Load())
	}
	return t
}

// Run takes samples until ctx ends.
func (m *Metrics) Run(ctx context.Context) error {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	m.past = []totals{m.totals()}
	var slow slowNumbers
	for seq := int64(1); ; seq++ {
		if seq%rateOver == 1 {
			if err := slow.read(ctx, m.app.store); err != nil && ctx.Err() == nil {
				m.app.log.Warn("sample", "err", err) // and show the numbers of a second ago
			}
		}
		m.latest.Store(m.sample(seq, slow))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (m *Metrics) sample(seq int64, slow slowNumbers) *Sample {
	now := m.totals()
	m.past = append(m.past, now)
	if len(m.past) > rateOver+1 {
		m.past = m.past[1:]
	}
	old := m.past[0]
	seconds := max(now.at.Sub(old.at).Seconds(), 0.001)
	rate := func(now, old int64) float64 { return float64(now-old) / seconds }

	s := &Sample{Seq: seq, Switches: map[string]bool{}}
	for name, b := range m.app.switches.all() {
		s.Switches[name] = b.Load()
	}
	s.Coalesce.Reads = rate(now.pages, old.pages)
	s.Coalesce.Queries = rate(now.loads, old.loads)
	s.Coalesce.Percent = 100 * ratio(now.loads-old.loads, now.pages-old.pages)
	s.Shard.PerRead = ratio(now.asked-old.asked, now.loads-old.loads)
	s.Shard.Rows = slow.rows
	s.Outbox.Waiting, s.Outbox.Lost = slow.waiting, now.lost
	s.RateLimit.Offered = rate(now.offered, old.offered)
	s.RateLimit.Admitted = rate(now.admitted, old.admitted)
	s.RateLimit.Refused = s.RateLimit.Offered - s.RateLimit.Admitted
	var all int64
	for i := range now.queries {
		all += now.queries[i] - old.queries[i]
	}
	for i := range now.queries {
		s.Balance.Share = append(s.Balance.Share, 100*ratio(now.queries[i]-old.queries[i], all))
	}
	recent := now.latencies.minus(old.latencies)
	s.Balance.P90 = recent.quantile(0.9).Seconds() * 1000
	return s
}

func ratio(a, b int64) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// slowNumbers cost a query each and are read once a second.
type slowNumbers struct {
	rows    []int64
	waiting int64
}

func (n *slowNumbers) read(ctx context.Context, s *Store) error {
	waiting, err := s.Waiting(ctx)
	if err != nil {
		return err
	}
	var rows []int64
	for sh := range s.shards.All() {
		var count int64
		if err := s.nodes[sh.Node].db.QueryRowContext(ctx, `SELECT count(*) FROM messages`).Scan(&count); err != nil {
			return err
		}
		rows = append(rows, count)
	}
	n.rows, n.waiting = rows, waiting
	return nil
}

// last takes one more sample, for the summary, after the service has come to rest.
func (m *Metrics) last() error {
	var slow slowNumbers
	if err := slow.read(context.Background(), m.app.store); err != nil {
		return err
	}
	m.latest.Store(m.sample(0, slow))
	return nil
}
