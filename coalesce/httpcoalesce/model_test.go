package httpcoalesce_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/coalesce/httpcoalesce"
)

// A plan says what one execution does.
type plan struct {
	chunks  []int
	flush   []bool
	pause   []time.Duration // before each chunk
	length  bool            // announce Content-Length
	private bool
	vary    bool
	abort   int // before this chunk; -1: never

	// What happened.
	begun, ended time.Duration // ended 0: not yet
	variant      string
}

func (p *plan) text(run int) []byte {
	var b []byte
	for i := range p.size() {
		b = append(b, byte(run*31+i*7+i/251))
	}
	return b
}

func (p *plan) size() (n int) {
	for _, c := range p.chunks {
		n += c
	}
	return n
}

func drawPlan(t *rapid.T) *plan {
	n := rapid.IntRange(0, 8).Draw(t, "chunks")
	p := &plan{
		length:  rapid.Bool().Draw(t, "length"),
		private: rapid.IntRange(0, 4).Draw(t, "private") == 0,
		vary:    rapid.IntRange(0, 2).Draw(t, "vary") == 0,
		abort:   -1,
	}
	if rapid.IntRange(0, 3).Draw(t, "aborts") == 0 {
		p.abort = rapid.IntRange(0, n).Draw(t, "abort")
	}
	for range n {
		p.chunks = append(p.chunks, rapid.SampledFrom([]int{1, 10, 100, 1000, 5000, 40_000}).Draw(t, "chunk"))
		p.flush = append(p.flush, rapid.Bool().Draw(t, "flush"))
		p.pause = append(p.pause, time.Duration(rapid.IntRange(0, 5).Draw(t, "pause"))*time.Millisecond)
	}
	return p
}

// do is the handler of one execution.
func (p *plan) do(run int, w http.ResponseWriter) {
	text := p.text(run)
	w.Header().Set("Run", strconv.Itoa(run))
	if p.length {
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	}
	if p.private {
		w.Header().Set("Cache-Control", "private")
	}
	if p.vary {
		w.Header().Set("Vary", "Variant")
	}
	for i, n := range p.chunks {
		time.Sleep(p.pause[i])
		if p.abort == i {
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(text[:n])
		if text = text[n:]; p.flush[i] {
			w.(http.Flusher).Flush()
		}
	}
	if p.abort == len(p.chunks) {
		panic(http.ErrAbortHandler)
	}
}

// A visit is what one client does.
type visit struct {
	key, variant string
	arrives      time.Duration
	leaves       time.Duration // after it has come; 0: never
	delay        time.Duration // of each Write
	breaks       int           // after so many bytes; -1: never

	header http.Header
	sent   http.Header
	body   []byte
	result any
	broken bool
}

func drawVisit(t *rapid.T) *visit {
	v := &visit{
		key:     rapid.SampledFrom([]string{"/a", "/b"}).Draw(t, "key"),
		variant: rapid.SampledFrom([]string{"1", "2"}).Draw(t, "variant"),
		arrives: time.Duration(rapid.IntRange(0, 60).Draw(t, "arrives")) * time.Millisecond,
		breaks:  -1,
	}
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0:
		v.leaves = time.Duration(rapid.IntRange(1, 20).Draw(t, "leaves")) * time.Millisecond
	case 1:
		v.breaks = rapid.IntRange(0, 10_000).Draw(t, "breaks")
	case 2:
		v.delay = time.Duration(rapid.IntRange(1, 30).Draw(t, "delay")) * time.Millisecond
	}
	return v
}

func (v *visit) Header() http.Header { return v.header }
func (v *visit) WriteHeader(int)     { v.sent = v.header.Clone() }
func (v *visit) Flush()              {}

func (v *visit) Write(p []byte) (int, error) {
	time.Sleep(v.delay)
	if v.sent == nil {
		v.WriteHeader(200)
	}
	if v.broken = v.broken || v.breaks >= 0 && len(v.body)+len(p) > v.breaks; v.broken {
		return 0, errors.New("connection reset")
	}
	v.body = append(v.body, p...)
	return len(p), nil
}

func (v *visit) run(h http.Handler) {
	v.header = http.Header{}
	r := get(v.key, "Variant: "+v.variant)
	if v.leaves > 0 {
		ctx, cancel := context.WithTimeout(r.Context(), v.leaves)
		defer cancel()
		r = r.WithContext(ctx)
	}
	defer func() { v.result = recover() }()
	h.ServeHTTP(v, r)
	if v.sent == nil {
		v.WriteHeader(http.StatusOK) // as net/http does
	}
}

// TestEveryStreamIsWholeOrBroken draws executions and clients of all kinds, and checks
// what each client got: all bytes of one execution or a broken connection; of an
// execution for its key and variant that had not ended when the client came; and what
// is private only once.
func TestEveryStreamIsWholeOrBroken(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		plans := rapid.SliceOfN(rapid.Custom(drawPlan), 1, 6).Draw(rt, "plans")
		visits := rapid.SliceOfN(rapid.Custom(drawVisit), 1, 12).Draw(rt, "visits")
		buffer := rapid.SampledFrom([]int{1, 100, 4096, 50_000, 1 << 20}).Draw(rt, "buffer")
		if buffer == 1 {
			for _, p := range plans { // a byte at a time takes long
				for i := range p.chunks {
					p.chunks[i] = min(p.chunks[i], 100)
				}
			}
		}
		var runs []*plan
		var stats httpcoalesce.Stats
		flights := 0
		synctest.Test(t, func(t *testing.T) {
			runs, stats, flights = play(t, plans, visits, buffer)
		})
		for _, v := range visits {
			v.check(rt, runs, buffer)
		}
		for i, p := range runs {
			if p.private || p.length && p.size() > buffer {
				got := slices.DeleteFunc(slices.Clone(visits), func(v *visit) bool { return v.sent.Get("Run") != strconv.Itoa(i) })
				require.LessOrEqual(rt, len(got), 1, "run %d is not for many", i)
			}
		}
		require.EqualValues(rt, len(runs), stats.Executions)
		require.EqualValues(rt, len(visits), stats.Requests)
		require.Zero(rt, stats.InFlight)
		require.Zero(rt, flights)
	})
}

// play lets it all happen and returns the executions.
func play(t *testing.T, plans []*plan, visits []*visit, buffer int) ([]*plan, httpcoalesce.Stats, int) {
	var mu sync.Mutex
	var runs []*plan
	start := time.Now()
	h, err := httpcoalesce.New(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		run := len(runs)
		p := *plans[run%len(plans)]
		p.begun, p.variant = time.Since(start), r.URL.Path+r.Header.Get("Variant")
		runs = append(runs, &p)
		mu.Unlock()
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			p.ended = time.Since(start)
		}()
		p.do(run, w)
	}), httpcoalesce.Options{MaxBuffer: buffer, HitForPass: 10 * time.Millisecond})
	require.NoError(t, err)
	var wg sync.WaitGroup
	for _, v := range visits {
		wg.Go(func() {
			time.Sleep(v.arrives)
			v.run(h)
		})
	}
	wg.Wait()
	return runs, h.Stats(), httpcoalesce.Flights(h)
}

func (v *visit) check(t *rapid.T, runs []*plan, buffer int) {
	if v.sent == nil {
		require.True(t, v.result != nil, "neither an answer nor a broken connection")
		return
	}
	run, err := strconv.Atoi(v.sent.Get("Run"))
	require.NoError(t, err)
	p := runs[run]
	text := p.text(run)
	require.True(t, p.ended >= v.arrives, "run %d ended at %v, before the client came at %v", run, p.ended, v.arrives)
	require.Equal(t, v.key, p.variant[:2])
	if p.vary {
		require.Equal(t, v.key+v.variant, p.variant)
	}
	require.LessOrEqual(t, len(v.body), len(text))
	require.True(t, bytes.Equal(text[:len(v.body)], v.body), "bytes of run %d are wrong", run)
	if v.result == nil && !v.broken { // a handler that runs for a client alone does not see that it broke
		require.Len(t, v.body, len(text), "a short body looks complete")
		require.Equal(t, -1, p.abort, "an aborted response looks complete")
	}
	if v.result != nil && v.leaves == 0 && v.breaks < 0 && len(text) <= buffer {
		require.GreaterOrEqual(t, p.abort, 0, "a client is cut off that does not leave, and the body fits: %v", v.result)
	}
}

// TestNobodyGetsAResponseThatWasFinished: a client that comes when another one has
// already got a response to its end never gets the same one. A hot key, and a handler
// that takes no time, so that requests come in the moment in which a flight ends.
func TestNobodyGetsAResponseThatWasFinished(t *testing.T) {
	var runs, finished atomic.Int64
	h, err := httpcoalesce.New(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, runs.Add(1))
	}), httpcoalesce.Options{})
	require.NoError(t, err)
	const clients = 16
	requests := 10_000
	if raceEnabled {
		requests = 2_000
	}
	var wg sync.WaitGroup
	var stale atomic.Int64
	for range clients {
		wg.Go(func() {
			r := get("/")
			for range requests {
				before := finished.Load()
				b := &browser{header: http.Header{}}
				h.ServeHTTP(b, r)
				run, err := strconv.ParseInt(b.text(), 10, 64)
				if err != nil || run <= before {
					stale.Add(1)
				}
				for old := finished.Load(); old < run && !finished.CompareAndSwap(old, run); old = finished.Load() {
				}
			}
		})
	}
	wg.Wait()
	require.Zero(t, stale.Load())
	st := h.Stats()
	require.EqualValues(t, clients*requests, st.Requests)
	require.Equal(t, st.Requests, st.Executions+st.Joined)
	require.EqualValues(t, runs.Load(), st.Executions)
}
