package httpbalance_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/balance/httpbalance"
)

var (
	errDial  = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	errReset = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
)

func TestWhatIsTriedAgain(t *testing.T) {
	t.Parallel()
	type answer struct {
		code int
		err  error
	}
	reset, dial := answer{err: errReset}, answer{err: errDial}
	const body, replayable = true, true
	for _, tc := range []struct {
		method     string
		header     string
		body       bool
		replayable bool
		answer     answer
		retries    int
		sent       int
	}{
		{method: "GET", answer: reset, sent: 3},
		{method: "GET", answer: dial, sent: 3},
		{method: "", answer: reset, sent: 3},
		{method: "HEAD", answer: reset, sent: 3},
		{method: "OPTIONS", answer: reset, sent: 3},
		{method: "TRACE", answer: reset, sent: 3},
		{method: "DELETE", answer: reset, sent: 3},
		{method: "PUT", body: body, replayable: replayable, answer: reset, sent: 3},
		{method: "PUT", body: body, answer: reset, sent: 1},
		{method: "PUT", body: body, answer: dial, sent: 1},
		{method: "POST", answer: reset, sent: 1},
		{method: "POST", answer: dial, sent: 3},
		{method: "POST", body: body, replayable: replayable, answer: dial, sent: 3},
		{method: "POST", body: body, replayable: replayable, answer: reset, sent: 1},
		{method: "POST", header: "Idempotency-Key", body: body, replayable: replayable, answer: reset, sent: 3},
		{method: "POST", header: "X-Idempotency-Key", body: body, replayable: replayable, answer: answer{code: 503}, sent: 3},
		{method: "POST", header: "Idempotency-Key", body: body, answer: reset, sent: 1},
		{method: "PATCH", answer: answer{code: 503}, sent: 1},
		{method: "POST", answer: answer{code: 503}, sent: 1},
		{method: "GET", answer: answer{code: 200}, sent: 1},
		{method: "GET", answer: answer{code: 404}, sent: 1},
		{method: "GET", answer: answer{code: 429}, sent: 3},
		{method: "GET", answer: answer{code: 500}, sent: 1},
		{method: "GET", answer: answer{code: 501}, sent: 1},
		{method: "GET", answer: answer{code: 502}, sent: 3},
		{method: "GET", answer: answer{code: 503}, sent: 3},
		{method: "GET", answer: answer{code: 504}, sent: 3},
		{method: "GET", answer: answer{code: 505}, sent: 1},
		{method: "GET", answer: answer{code: 507}, sent: 1},
		{method: "GET", answer: answer{code: 503}, retries: -1, sent: 1},
		{method: "GET", answer: answer{code: 503}, retries: 1, sent: 2},
		{method: "GET", answer: answer{code: 503}, retries: 9, sent: 5}, // there are five backends
	} {
		what := fmt.Sprintf("%+v", tc)
		b, told := newBalancer(t, "http://a", "http://b", "http://c", "http://d", "http://e")
		hosts := map[string]bool{}
		var opened []*tracked
		open := func() *tracked {
			opened = append(opened, &tracked{Reader: strings.NewReader("payload")})
			return opened[len(opened)-1]
		}
		tr := &httpbalance.Transport{Balancer: b, Retries: tc.retries, Base: roundTripper(func(r *http.Request) (*http.Response, error) {
			require.False(t, hosts[r.URL.Host], "%s: twice to %s", what, r.URL.Host)
			hosts[r.URL.Host] = true
			if r.Body != nil {
				got, err := io.ReadAll(r.Body)
				require.NoError(t, err)
				require.Equal(t, "payload", string(got), what)
				_ = r.Body.Close()
			}
			if tc.answer.err != nil {
				return nil, tc.answer.err
			}
			return respond(tc.answer.code, text(r.URL.Host)), nil
		})}
		r := newRequest(t, context.Background(), tc.method, "http://service/", nil)
		if tc.body {
			r.Body = open()
		}
		if tc.replayable {
			r.GetBody = func() (io.ReadCloser, error) { return open(), nil }
		}
		if tc.header != "" {
			r.Header[tc.header] = nil // counts, though it is not sent
		}
		resp, err := tr.RoundTrip(r)
		require.Len(t, hosts, tc.sent, what)
		require.EqualValues(t, tc.sent-1, tr.Stats().Retries, what)
		for _, b := range opened {
			require.True(t, b.closed.Load(), what)
		}
		if tc.answer.err != nil {
			require.Equal(t, tc.answer.err, err, what)
		} else {
			require.NoError(t, err, what)
			require.Equal(t, tc.answer.code, resp.StatusCode, what)
			got, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Len(t, string(got), len("a:80"), "%s: the last response is whole", what)
		}
		require.Zero(t, sum(b).InFlight, what)
		if sum(b).Failures != 0 {
			require.EqualValues(t, tc.sent, sum(b).Failures, "%s: each of them is told, %v", what, told.all())
		}
	}
}

func TestARetryCanSucceed(t *testing.T) {
	t.Parallel()
	for _, first := range []int{0, 503} {
		b, _ := newBalancer(t, "http://a", "http://b")
		tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(r *http.Request) (*http.Response, error) {
			switch {
			case r.URL.Host != "a:80":
				return respond(200, text("hello")), nil
			case first == 0:
				return nil, errReset
			}
			return respond(first, text("sorry")), nil
		})}
		for range 4 {
			resp, err := tr.RoundTrip(newRequest(t, context.Background(), "GET", "http://service/", nil))
			require.NoError(t, err)
			require.Equal(t, 200, resp.StatusCode)
			got, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, "hello", string(got))
		}
		require.Positive(t, sum(b).Failures)
		require.EqualValues(t, sum(b).Failures, tr.Stats().Retries)
	}
}

func TestWithoutAnotherBackendThereIsNoRetry(t *testing.T) {
	t.Parallel()
	b, _ := newBalancer(t, "http://a")
	sent := 0
	tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(r *http.Request) (*http.Response, error) {
		sent++
		_ = r.Body.Close()
		return respond(503, text("sorry")), nil
	})}
	const requests = 50
	for range requests {
		again := &tracked{Reader: strings.NewReader("x")}
		r := newRequest(t, context.Background(), "PUT", "http://service/", strings.NewReader("x"))
		r.GetBody = func() (io.ReadCloser, error) { return again, nil }
		resp, err := tr.RoundTrip(r)
		require.NoError(t, err)
		require.True(t, again.closed.Load(), "if it was opened at all, and it is")
		got, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, "sorry", string(got))
	}
	require.Equal(t, requests, sent)
	require.Equal(t, httpbalance.Stats{}, tr.Stats(), "and it costs no budget")
	require.Zero(t, sum(b).InFlight)
	require.EqualValues(t, requests, sum(b).Failures)
}

func TestABodyThatCannotBeHadAgainLeavesTheFirstAnswer(t *testing.T) {
	t.Parallel()
	b, _ := newBalancer(t, "http://a", "http://b")
	tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(*http.Request) (*http.Response, error) {
		return respond(503, text("sorry")), nil
	})}
	r := newRequest(t, context.Background(), "PUT", "http://service/", strings.NewReader("x"))
	r.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("file is gone") }
	resp, err := tr.RoundTrip(r)
	require.NoError(t, err)
	got, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "sorry", string(got))
	require.Zero(t, sum(b).InFlight)
	require.Zero(t, tr.Stats().Retries)
}

func TestACancelledRequestIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	b, told := newBalancer(t, "http://a", "http://b", "http://c")
	ctx, cancel := context.WithCancel(context.Background())
	tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(*http.Request) (*http.Response, error) {
		cancel()
		return nil, errReset
	})}
	_, err := tr.RoundTrip(newRequest(t, ctx, "GET", "http://service/", nil))
	require.Equal(t, errReset, err)
	require.EqualValues(t, 1, sum(b).Picks)
	require.Equal(t, []error{context.Canceled}, told.all())
}

// No second goes by, so what there is are a fifth of the requests and the reserve.
func TestRetriesStayInTheirBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBalancer(t, "http://a", "http://b", "http://c")
		sent := int64(0)
		tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(*http.Request) (*http.Response, error) {
			sent++
			return nil, errReset
		})}
		storm := func(n int) {
			for range n {
				_, err := tr.RoundTrip(newRequest(t, context.Background(), "GET", "http://service/", nil))
				require.Equal(t, errReset, err)
			}
		}
		storm(1000)
		require.EqualValues(t, 1000/5+10, tr.Stats().Retries)
		require.EqualValues(t, 1000+1000/5+10, sent)
		require.Positive(t, tr.Stats().Refused)
		before := tr.Stats().Retries
		time.Sleep(500 * time.Millisecond)
		storm(100)
		require.EqualValues(t, 100/5+5, tr.Stats().Retries-before)
		before = tr.Stats().Retries
		time.Sleep(time.Hour)
		storm(100)
		require.EqualValues(t, 100/5+10, tr.Stats().Retries-before)
	})
}

func TestBudgetNeverGivesMoreThanItsShare(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var b httpbalance.Budget
		now := time.Unix(1e9, 0)
		elapsed, requests, retries := time.Duration(0), 0, 0
		jumps := 0
		t.Repeat(map[string]func(*rapid.T){
			"requests": func(t *rapid.T) {
				n := rapid.IntRange(1, 700).Draw(t, "n")
				requests += n
				for range n {
					b.Deposit()
				}
			},
			"retries": func(t *rapid.T) {
				for range rapid.IntRange(1, 150).Draw(t, "n") {
					if b.Withdraw(now) {
						retries++
					}
				}
			},
			"refund": func(t *rapid.T) {
				if retries > 0 && b.Withdraw(now) {
					b.Refund()
				}
			},
			"time": func(t *rapid.T) {
				d := time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "d"))
				now, elapsed = now.Add(d), elapsed+d
			},
			"set back": func(t *rapid.T) {
				now = now.Add(-time.Hour)
				jumps++
			},
			"": func(t *rapid.T) {
				limit := float64(requests)/5 + 10*float64(1+jumps) + elapsed.Seconds()*10
				require.LessOrEqual(t, float64(retries), limit)
			},
		})
	})
}

// A clock that was set back must not keep the reserve shut until it has caught up.
func TestAClockSetBackDoesNotCloseTheReserve(t *testing.T) {
	t.Parallel()
	var b httpbalance.Budget
	now := time.Unix(1e9, 0)
	for _, at := range []time.Time{now, now.Add(-time.Hour), now.Add(-2 * time.Hour)} {
		granted := 0
		for b.Withdraw(at) {
			granted++
		}
		require.Equal(t, 10, granted)
	}
}

// Chance alone would send half of the retries to the backend that has just failed.
func TestARetryNeverGoesWhereTheRequestFailed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, err := balance.New[*url.URL](balance.Random(), balance.Options{Health: unhealthy})
		require.NoError(t, err)
		set, err := httpbalance.Static("http://a", "http://b")
		require.NoError(t, err)
		require.NoError(t, b.Update(set))
		tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "a:80" {
				return nil, errReset
			}
			return respond(200, http.NoBody), nil
		})}
		for range 100 {
			_, err := tr.RoundTrip(newRequest(t, context.Background(), "GET", "http://service/", nil))
			require.NoError(t, err)
			time.Sleep(time.Second) // for the budget
		}
		require.Positive(t, tr.Stats().Retries)
	})
}

func TestUnspentBudgetIsBounded(t *testing.T) {
	t.Parallel()
	var b httpbalance.Budget
	for range 1_000_000 {
		b.Deposit()
	}
	granted := 0
	for b.Withdraw(time.Unix(1e9, 0)) {
		granted++
	}
	require.Equal(t, 110, granted)
}

// Error pages that nobody reads must not cost a connection each.
func TestDiscardedResponsesLeaveTheirConnectionsUsable(t *testing.T) {
	t.Parallel()
	var connections atomic.Int64
	serve := func(code int) string {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = w.Write(bytes.Repeat([]byte("x"), 6000))
		}))
		s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				connections.Add(1)
			}
		}
		s.Start()
		t.Cleanup(s.Close)
		return s.URL
	}
	b, _ := newBalancer(t, serve(503), serve(503), serve(200))
	base := &http.Transport{}
	t.Cleanup(base.CloseIdleConnections)
	tr := &httpbalance.Transport{Balancer: b, Base: base}
	for range 5 { // at most ten retries, as many as the reserve has
		resp, err := tr.RoundTrip(newRequest(t, context.Background(), "GET", "http://service/", nil))
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
		_, err = io.ReadAll(resp.Body)
		require.NoError(t, err)
	}
	require.Positive(t, tr.Stats().Retries)
	require.EqualValues(t, 3, connections.Load())
}

func TestADiscardedBodyThatStallsDelaysTheRetryLittle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBalancer(t, "http://a", "http://b")
		stalled, closed := io.Pipe()
		tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "a:80" {
				return respond(503, stalled), nil
			}
			return respond(200, http.NoBody), nil
		})}
		for sum(b).Failures == 0 {
			start := time.Now()
			resp, err := tr.RoundTrip(newRequest(t, context.Background(), "GET", "http://service/", nil))
			require.NoError(t, err)
			require.Equal(t, 200, resp.StatusCode)
			require.LessOrEqual(t, time.Since(start), 50*time.Millisecond)
		}
		_, err := closed.Write([]byte("x"))
		require.ErrorIs(t, err, io.ErrClosedPipe)
		require.Zero(t, sum(b).InFlight)
	})
}
