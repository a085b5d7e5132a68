package httplimit_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/httplimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

func concurrency(t require.TestingT, o shed.ConcurrencyOptions) *shed.Concurrency {
	c, err := shed.NewConcurrency(o)
	require.NoError(t, err)
	return c
}

func shedding(t require.TestingT, gate httplimit.Gate, o httplimit.ShedOptions) *httplimit.Shed {
	s, err := httplimit.NewShed(gate, o)
	require.NoError(t, err)
	return s
}

// gateFunc is a gate that does as it is told.
type gateFunc func(context.Context, shed.Class) (shed.Permit, error)

func (f gateFunc) Acquire(ctx context.Context, c shed.Class) (shed.Permit, error) { return f(ctx, c) }

func refusing(wait time.Duration) gateFunc {
	return func(_ context.Context, c shed.Class) (shed.Permit, error) {
		return shed.Permit{}, fmt.Errorf("wrapped: %w", &shed.Error{Class: c, Reason: shed.Full, RetryAfter: wait})
	}
}

func TestSheddingIsA503(t *testing.T) {
	gate := concurrency(t, shed.ConcurrencyOptions{Limit: 1})
	s := shedding(t, gate, httplimit.ShedOptions{})
	var h http.Handler
	h = s.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			_, _ = io.WriteString(w, "served")
			return
		}
		res := call(h, "GET", "a", 1) // while this one is in progress
		require.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
		require.Equal(t, "application/problem+json", res.Header.Get("Content-Type"))
		require.Empty(t, res.Header.Values("RateLimit"))
		require.Contains(t, []string{"1", "2"}, res.Header.Get("Retry-After"))
		text := body(t, res)
		require.Equal(t, strconv.Itoa(len(text)), res.Header.Get("Content-Length"))
		require.JSONEq(t, `{
			"type": "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
			"title": "Request cannot be satisfied due to temporary server capacity constraints",
			"status": 503
		}`, text)
	}))
	require.Equal(t, 200, call(h, "POST", "a", 1).StatusCode)
	require.Equal(t, "served", body(t, call(h, "GET", "a", 1)))
	require.Equal(t, httplimit.ShedStats{Admitted: 2, Refused: 1}, s.Stats())
	require.Zero(t, gate.Stats().InFlight)
}

func TestRetryAfterOfSheddingIsSpread(t *testing.T) {
	for _, tc := range []struct {
		gate, option time.Duration
		from, to     int
	}{
		{0, 0, 1, 2},
		{0, 1, 1, 2},
		{0, 4 * time.Second, 4, 8},
		{time.Millisecond, time.Hour, 1, 2},
		{2500 * time.Millisecond, 0, 3, 6},
	} {
		h := shedding(t, refusing(tc.gate), httplimit.ShedOptions{RetryAfter: tc.option}).Wrap(http.HandlerFunc(ok))
		seen := map[int]bool{}
		for range 400 {
			n, err := strconv.Atoi(call(h, "GET", "a", 1).Header.Get("Retry-After"))
			require.NoError(t, err)
			seen[n] = true
		}
		for n := tc.from; n <= tc.to; n++ {
			require.True(t, seen[n], "%d of %v", n, tc)
			delete(seen, n)
		}
		require.Empty(t, seen)
	}
}

func TestClassesReachTheGate(t *testing.T) {
	var got []shed.Class
	gate := gateFunc(func(_ context.Context, c shed.Class) (shed.Permit, error) {
		got = append(got, c)
		return shed.Permit{}, nil
	})
	call(shedding(t, gate, httplimit.ShedOptions{}).Wrap(http.HandlerFunc(ok)), "GET", "a", 1)
	h := shedding(t, gate, httplimit.ShedOptions{Class: httplimit.ByMethod}).Wrap(http.HandlerFunc(ok))
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "TRACE", "POST", "PUT", "DELETE", "PATCH", "REPORT"} {
		call(h, method, "a", 1)
	}
	s, d := shed.Sheddable, shed.Default
	require.Equal(t, []shed.Class{d, s, s, s, s, d, d, d, d, d}, got)
}

func TestAdmitIsAskedBeforeTheGate(t *testing.T) {
	gate := gateFunc(func(context.Context, shed.Class) (shed.Permit, error) { t.Error("asked"); return shed.Permit{}, nil })
	admit := func(r *http.Request, c shed.Class) error {
		require.Equal(t, "a", r.Header.Get("User"))
		return &shed.Error{Class: c, Reason: shed.Overloaded}
	}
	require.Equal(t, 503, call(shedding(t, gate, httplimit.ShedOptions{Admit: admit}).Wrap(http.HandlerFunc(ok)), "GET", "a", 1).StatusCode)

	// A rule alone bounds nothing.
	shedder, err := shed.NewShedder(shed.ShedderOptions{Utilization: func() float64 { return 0 }})
	require.NoError(t, err)
	s := shedding(t, nil, httplimit.ShedOptions{Admit: func(_ *http.Request, c shed.Class) error { return shedder.Admit(c, "a") }})
	require.Equal(t, 200, call(s.Wrap(http.HandlerFunc(ok)), "GET", "a", 1).StatusCode)
	require.Equal(t, uint64(1), s.Stats().Admitted)
}

func TestOutcomes(t *testing.T) {
	for _, tc := range []struct {
		status   int
		hijacked bool
		err      error
		want     shed.Outcome
	}{
		{0, false, nil, shed.Success},
		{200, false, nil, shed.Success},
		{404, false, nil, shed.Success},
		{500, false, nil, shed.Success},
		{502, false, nil, shed.Success},
		{503, false, nil, shed.Drop},
		{504, false, nil, shed.Drop},
		{429, false, nil, shed.Ignore},
		{0, true, nil, shed.Ignore},
		{101, true, nil, shed.Ignore},
		{200, false, context.DeadlineExceeded, shed.Drop},
		{200, false, context.Canceled, shed.Ignore},
		{503, false, context.Canceled, shed.Ignore},
	} {
		require.Equal(t, tc.want, httplimit.OutcomeOf(tc.status, tc.hijacked, tc.err), "%v", tc)
	}
}

// The outcomes reach a gate that learns: dropped requests lower its limit.
func TestDropsAreLearnt(t *testing.T) {
	for status, lower := range map[int]bool{200: false, 503: true} {
		synctest.Test(t, func(t *testing.T) {
			gate, err := shed.NewAdaptive(shed.AdaptiveOptions{})
			require.NoError(t, err)
			before := gate.Stats().Limit
			h := shedding(t, gate, httplimit.ShedOptions{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				time.Sleep(10 * time.Millisecond)
				w.WriteHeader(http.StatusEarlyHints) // is not the answer yet
				w.WriteHeader(status)
			}))
			for range 200 {
				var wg sync.WaitGroup
				for range before {
					wg.Go(func() { h.ServeHTTP(&writer{http.Header{}}, httptest.NewRequest("GET", "/", nil)) })
				}
				wg.Wait()
			}
			require.Equal(t, lower, gate.Stats().Limit < before, "%d: %d", status, gate.Stats().Limit)
		})
	}
}

// How long a stream lasts is up to its client, so a gate that learns hears of drops alone.
func TestStreamsTellOnlyOfDrops(t *testing.T) {
	for status, lower := range map[int]bool{200: false, 503: true} {
		synctest.Test(t, func(t *testing.T) {
			gate, err := shed.NewAdaptive(shed.AdaptiveOptions{})
			require.NoError(t, err)
			before := gate.Stats().Limit
			last := time.Millisecond
			h := shedding(t, gate, httplimit.ShedOptions{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				w.(http.Flusher).Flush()
				time.Sleep(last)
			}))
			for range 100 {
				last += last / 20 // as if the server became slower and slower
				var wg sync.WaitGroup
				for range gate.Stats().Limit {
					wg.Go(func() { h.ServeHTTP(&writer{http.Header{}}, httptest.NewRequest("GET", "/", nil)) })
				}
				wg.Wait()
			}
			require.Equal(t, lower, gate.Stats().Limit < before, "%d: %d", status, gate.Stats().Limit)
		})
	}
}

func TestPermitsAreGivenBack(t *testing.T) {
	gate := concurrency(t, shed.ConcurrencyOptions{Limit: 1})
	for name, handle := range map[string]http.HandlerFunc{
		"silence": func(http.ResponseWriter, *http.Request) {},
		"panic":   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"late panic": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "half")
			panic(errors.New("late"))
		},
		"flush": func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() },
	} {
		h := shedding(t, gate, httplimit.ShedOptions{}).Wrap(handle)
		func() {
			defer func() {
				p := recover()
				require.Equal(t, strings.Contains(name, "panic"), p != nil, "panics pass through")
			}()
			call(h, "GET", "a", 1)
		}()
		require.Zero(t, gate.Stats().InFlight, name)
	}
}

func TestStreamsAndHijackedConnectionsHoldAPermitUntilTheHandlerReturns(t *testing.T) {
	gate := concurrency(t, shed.ConcurrencyOptions{Limit: 10})
	release := make(chan struct{})
	h := shedding(t, gate, httplimit.ShedOptions{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/stream":
			_, _ = io.WriteString(w, "first\n")
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			<-release
			_, _ = io.WriteString(w, "last\n")
		case "/file":
			n, err := io.Copy(w, bytes.NewReader(make([]byte, 100_000))) // by ReadFrom
			if n != 100_000 || err != nil {
				t.Error(n, err)
			}
		case "/hijack":
			conn, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nfirst\n")
			_ = rw.Flush()
			<-release
		}
	}))
	ended := make(chan struct{}, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		ended <- struct{}{}
	}))
	defer server.Close()
	for _, path := range []string{"/stream", "/hijack"} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+path, nil)
		require.NoError(t, err)
		res, err := server.Client().Do(r)
		require.NoError(t, err)
		line, err := bufio.NewReader(res.Body).ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "first\n", line)
		require.Equal(t, 1, gate.Stats().InFlight, path)
		release <- struct{}{}
		<-ended
		require.Zero(t, gate.Stats().InFlight, path)
		res.Body.Close()
	}
	r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/file", nil)
	require.NoError(t, err)
	res, err := server.Client().Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	require.NoError(t, err)
	require.Equal(t, int64(100_000), n)
}

func TestAResponseWriterThatCannotHijackSaysSo(t *testing.T) {
	gate := concurrency(t, shed.ConcurrencyOptions{Limit: 1})
	h := shedding(t, gate, httplimit.ShedOptions{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _, err := w.(http.Hijacker).Hijack()
		require.ErrorIs(t, err, http.ErrNotSupported)
		w.WriteHeader(http.StatusTeapot)
	}))
	require.Equal(t, http.StatusTeapot, call(h, "GET", "a", 1).StatusCode)
}

func TestTheFallbackAnswersInstead(t *testing.T) {
	s := shedding(t, refusing(0), httplimit.ShedOptions{Fallback: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "render it yourself")
	})})
	res := call(s.Wrap(http.HandlerFunc(ok)), "GET", "a", 1)
	require.Equal(t, 200, res.StatusCode)
	require.Equal(t, "render it yourself", body(t, res))
	require.Empty(t, res.Header.Get("Retry-After"))
	require.Equal(t, httplimit.ShedStats{FellBack: 1}, s.Stats())
}

func TestTheEndOfAContextInTheQueue(t *testing.T) {
	for _, tc := range []struct {
		why  string
		with func(context.Context) (context.Context, context.CancelFunc)
		want httplimit.ShedStats
	}{
		{"the client goes", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		}, httplimit.ShedStats{Admitted: 1, Gone: 1}},
		{"the time runs out", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		}, httplimit.ShedStats{Admitted: 1, Refused: 1}},
	} {
		synctest.Test(t, func(t *testing.T) {
			gate := concurrency(t, shed.ConcurrencyOptions{Limit: 1, Queue: shed.Queue{Max: 1, Target: time.Minute}})
			s := shedding(t, gate, httplimit.ShedOptions{})
			release := make(chan struct{})
			h := s.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
			go call(h, "GET", "a", 1)
			synctest.Wait()
			r := httptest.NewRequest("GET", "/", nil)
			ctx, cancel := tc.with(r.Context())
			defer cancel()
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r.WithContext(ctx))
			require.Equal(t, 503, w.Code, tc.why)
			close(release)
			synctest.Wait()
			require.Equal(t, tc.want, s.Stats(), tc.why)
			require.Zero(t, gate.Stats().InFlight)
		})
	}
}

func TestShadowShedsNobody(t *testing.T) {
	mode := httplimit.Shadow
	var seen []error
	s := shedding(t, refusing(0), httplimit.ShedOptions{
		Mode: func(*http.Request) httplimit.Mode { return mode },
		OnShed: func(_ *http.Request, m httplimit.Mode, err error) {
			require.Equal(t, mode, m)
			seen = append(seen, err)
		},
	})
	h := s.Wrap(http.HandlerFunc(ok))
	require.Equal(t, "served", body(t, call(h, "GET", "a", 1)))
	mode = httplimit.Off
	require.Equal(t, "served", body(t, call(h, "GET", "a", 1)))
	mode = httplimit.Enforce
	require.Equal(t, 503, call(h, "GET", "a", 1).StatusCode)
	require.Equal(t, httplimit.ShedStats{Shadowed: 1, Off: 1, Refused: 1}, s.Stats())
	require.Len(t, seen, 2)
	require.ErrorIs(t, seen[0], shed.ErrShed)
}

func TestItsOwnErrorsShedNobody(t *testing.T) {
	open := gateFunc(func(context.Context, shed.Class) (shed.Permit, error) { return shed.Permit{}, nil })
	broken := errors.New("broken")
	for name, tc := range map[string]struct {
		gate httplimit.Gate
		o    httplimit.ShedOptions
	}{
		"gate panics": {gateFunc(func(context.Context, shed.Class) (shed.Permit, error) { panic("boom") }), httplimit.ShedOptions{}},
		"gate fails":  {gateFunc(func(context.Context, shed.Class) (shed.Permit, error) { return shed.Permit{}, broken }), httplimit.ShedOptions{}},
		"Admit":       {open, httplimit.ShedOptions{Admit: func(*http.Request, shed.Class) error { panic("boom") }}},
		"Class":       {open, httplimit.ShedOptions{Class: func(*http.Request) shed.Class { panic("boom") }}},
		"Mode":        {open, httplimit.ShedOptions{Mode: func(*http.Request) httplimit.Mode { panic("boom") }}},
	} {
		var got []error
		tc.o.OnError = func(_ *http.Request, err error) {
			got = append(got, err)
			panic("and the hook too")
		}
		s := shedding(t, tc.gate, tc.o)
		require.Equal(t, "served", body(t, call(s.Wrap(http.HandlerFunc(ok)), "GET", "a", 1)), name)
		require.Len(t, got, 1, name)
		require.Equal(t, uint64(2), s.Stats().Failed, name)
		if name == "gate fails" {
			require.ErrorIs(t, got[0], broken)
		} else {
			var p *httplimit.PanicError
			require.ErrorAs(t, got[0], &p, name)
		}
	}
	s := shedding(t, refusing(0), httplimit.ShedOptions{OnShed: func(*http.Request, httplimit.Mode, error) { panic("boom") }})
	require.Equal(t, 503, call(s.Wrap(http.HandlerFunc(ok)), "GET", "a", 1).StatusCode, "a hook changes nothing")
}

func TestNewShedRefusesWhatCannotWork(t *testing.T) {
	_, err := httplimit.NewShed(nil, httplimit.ShedOptions{})
	require.ErrorContains(t, err, "the gate and ShedOptions.Admit are nil")
	_, err = httplimit.NewShed(refusing(0), httplimit.ShedOptions{RetryAfter: -1})
	require.ErrorContains(t, err, "ShedOptions.RetryAfter is -1ns")
}

// The limit of the client is asked first and says 429, the server's says 503.
func TestLimitsAndSheddingAreKeptApart(t *testing.T) {
	s := shedding(t, refusing(0), httplimit.ShedOptions{})
	h := newHandler(t, ratelimit.Per(1, time.Hour), httplimit.Options{Key: byUser}, s.Wrap(http.HandlerFunc(ok)).ServeHTTP)
	var types []string
	for _, want := range []int{503, 429} {
		res := call(h, "GET", "a", 1)
		require.Equal(t, want, res.StatusCode)
		var problem struct{ Type string }
		require.NoError(t, json.Unmarshal([]byte(body(t, res)), &problem))
		types = append(types, problem.Type)
	}
	require.NotEqual(t, types[0], types[1])
}
