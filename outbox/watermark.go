package outbox

import (
	"context"
	"maps"
	"math"
	"strings"
)

// A drainer deletes what it delivered, and reads from the front. While an old
// snapshot is held somewhere (a backup, a report, a replication slot), a server
// must keep the deleted rows, and each read walks over all of them. So a drainer
// wants to begin at the first id that may still come.
//
// That is not the last id it has read: ids are given before transactions commit,
// and a lower one may commit later. It is a watermark h of which is known that
// every id up to h is decided: what is visible now is all that will ever be.

// An order says how a drainer knows that it has seen all of the past.
type order int

const (
	// unknown: it never does, and reads from the front.
	unknown order = iota
	// marked: by the watermark of a server.
	marked
	// commits: ids grow in the order of commits, so the last id read is one.
	commits
)

func (s *sqlStore) order(ctx context.Context) (order, error) {
	switch {
	case s.sql.Ordered:
		return commits, nil
	case s.sql.Watermark == "":
		return unknown, nil
	}
	var why string
	err := s.retryBusy(ctx, func() error { return s.db.QueryRowContext(ctx, s.sql.Markable).Scan(&why) })
	if err != nil || why != "" {
		return unknown, err
	}
	return marked, nil
}

// A reading is the newest id that was given, and who may, a moment later, have
// an id that is not decided yet.
type reading struct {
	newest  int64
	holders []string
}

func (s *sqlStore) mark(ctx context.Context) (r reading, err error) {
	err = s.retryBusy(ctx, func() error {
		var names string
		if err := s.db.QueryRowContext(ctx, s.sql.Watermark).Scan(&r.newest, &names); err != nil {
			return err
		}
		r.holders = nil
		if names != "" {
			r.holders = strings.Split(names, ",")
		}
		return nil
	})
	return r, err
}

// A watermark makes readings into what is known.
type watermark struct {
	safe    int64 // every id up to this one is decided
	next    int64 // will be safe when open is empty
	open    map[string]struct{}
	pending bool
}

// step takes a reading. Those who held the table when next was read are waited
// for. One that turns into a prepared transaction has another name then, so
// whenever one is gone that was not prepared, all prepared transactions that are
// seen are waited for as well.
func (w *watermark) step(r reading) {
	now := make(map[string]struct{}, len(r.holders))
	for _, h := range r.holders {
		now[h] = struct{}{}
	}
	if !w.pending {
		w.pending, w.next, w.open = true, r.newest, now
	} else {
		gone := false
		maps.DeleteFunc(w.open, func(h string, _ struct{}) bool {
			_, still := now[h]
			gone = gone || !still && !isPrepared(h)
			return !still
		})
		for h := range now {
			if gone && isPrepared(h) {
				w.open[h] = struct{}{}
			}
		}
	}
	if len(w.open) == 0 {
		w.safe, w.pending, w.open = max(w.safe, w.next), false, nil
	}
}

func isPrepared(holder string) bool { return strings.HasPrefix(holder, "-") }

// reached returns up to where a read has seen everything, if it ended with last,
// or, not cut, with the last message there was.
//
// It is not beyond flushed, the greatest id that was written down: a server that
// crashes may forget that it gave an id, if nothing was committed after that, and
// give it again. What was written down has forced all that was before to disk.
func (w *watermark) reached(o order, last, flushed int64, cut bool) int64 {
	switch o {
	case commits:
		return last
	case marked:
		if !cut {
			last = math.MaxInt64
		}
		return min(w.safe, last, flushed)
	default:
		return 0
	}
}
