package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// Summarise writes what happened since the start, and beside it what the same
// traffic would have met without each pattern. The right column is counted or
// derived from the same run, not measured in another.
func (m *Metrics) Summarise(w io.Writer, ran time.Duration) error {
	t, a := m.totals(), m.app
	shards := int64(a.store.shards.Len())
	var queries int64
	for _, n := range t.queries {
		queries += n
	}
	slow := t.queries[len(t.queries)-1]
	waiting := int64(0)
	if s := m.latest.Load(); s != nil {
		waiting = s.Outbox.Waiting
	}

	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	row := func(pattern, with, without string) { fmt.Fprintf(tw, "%s\t%s\t%s\n", pattern, with, without) }
	fmt.Fprintf(w, "\n%.1f s, %d channel reads, %d posts%s\n\n", ran.Seconds(), t.pages, t.offered, a.traffic.trouble())
	row("PATTERN", "WHAT HAPPENED", "WITHOUT IT")
	row("coalesce", fmt.Sprintf("%d reads by %d database reads", t.pages, t.loads), fmt.Sprintf("%d database reads", t.pages))
	row("shard", fmt.Sprintf("%d database reads asked %d shards", t.loads, t.asked), fmt.Sprintf("%d: all %d shards each time", t.loads*shards, shards))
	row("outbox", fmt.Sprintf("%d webhooks delivered in %d attempts, %d waiting, %d lost", t.delivered, t.delivered+t.failed, waiting, t.lost),
		fmt.Sprintf("%d lost: their first attempt failed", t.first+t.lost))
	row("ratelimit", fmt.Sprintf("%d posts stored, %d refused with a 429", t.committed, t.offered-t.admitted), fmt.Sprintf("%d posts stored", t.committed+t.offered-t.admitted))
	row("balance", fmt.Sprintf("slow replica took %.0f %% of the queries, p90 %s", 100*ratio(slow, queries), millis(t.latencies.quantile(0.9))),
		fmt.Sprintf("%.0f %%, p90 at least %s", 100/float64(len(t.queries)), millis(networkDelay+a.Config.Slow)))
	return tw.Flush()
}

func millis(d time.Duration) string { return fmt.Sprintf("%.0f ms", d.Seconds()*1000) }
