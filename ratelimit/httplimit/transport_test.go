package httplimit_test

import (
	"context"
	"errors"
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

// serverFunc is a RoundTripper without a network.
type serverFunc func(*http.Request) (*http.Response, error)

func (f serverFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// answering answers with a status and with fields, given as name, value and so on.
func answering(status int, fields ...string) serverFunc {
	return func(r *http.Request) (*http.Response, error) {
		h := http.Header{}
		for i := 0; i < len(fields); i += 2 {
			h.Add(fields[i], fields[i+1])
		}
		return &http.Response{StatusCode: status, Header: h, Body: http.NoBody, Request: r}, nil
	}
}

func get(ctx context.Context, rt http.RoundTripper, url string) error {
	r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return err
	}
	res, err := rt.RoundTrip(r)
	if err == nil {
		err = res.Body.Close()
	}
	return err
}

func TestServersAreHeeded(t *testing.T) {
	for _, tc := range []struct {
		why    string
		server serverFunc
		max    time.Duration
		want   time.Duration
	}{
		{"429", answering(429, "Retry-After", "7"), 0, 7 * time.Second},
		{"503", answering(503, "Retry-After", "7"), 0, 7 * time.Second},
		{"a date", answering(503, "Retry-After", "Sat, 01 Jan 2000 00:00:09 GMT"), 0, 9 * time.Second},
		{"another status", answering(301, "Retry-After", "7"), 0, 0},
		{"no field", answering(429), 0, 0},
		{"nothing left", answering(200, "RateLimit", `"a";r=0;t=5`), 0, 5 * time.Second},
		{"something left", answering(200, "RateLimit", `"a";r=1;t=5`), 0, 0},
		{"Retry-After of both", answering(429, "RateLimit", `"a";r=0;t=5`, "Retry-After", "3"), 0, 3 * time.Second},
		{"even if it is 0", answering(429, "RateLimit", `"a";r=0;t=5`, "Retry-After", "0"), 0, 0},
		{"unless it cannot be read", answering(429, "RateLimit", `"a";r=0;t=5`, "Retry-After", "soon"), 0, 5 * time.Second},
		{"several lines", answering(200, "RateLimit", `"a";r=0;t=5`, "RateLimit", `"b";r=0;t=6`), 0, 6 * time.Second},
		{"out of a cache", answering(200, "RateLimit", `"a";r=0;t=5`, "Age", "3"), 0, 0},
		{"malformed", answering(200, "RateLimit", `a;r=0;t=5`), 0, 0},
		{"a day is cut", answering(429, "Retry-After", "86400"), 0, time.Minute},
		{"to what is allowed", answering(429, "Retry-After", "86400"), time.Hour, time.Hour},
		{"not heeded", answering(429, "Retry-After", "7"), -1, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			sent := 0
			rt := &httplimit.Transport{MaxPause: tc.max, Base: serverFunc(func(r *http.Request) (*http.Response, error) {
				if sent++; sent == 1 {
					return tc.server(r)
				}
				return answering(200)(r)
			})}
			start := time.Now()
			require.NoError(t, get(t.Context(), rt, "http://a/"))
			require.NoError(t, get(t.Context(), rt, "http://b/"))
			require.Zero(t, time.Since(start), "another host is not paused")
			require.NoError(t, get(t.Context(), rt, "http://a/x"))
			require.Equal(t, tc.want, time.Since(start), tc.why)
			require.NoError(t, get(t.Context(), rt, "http://a/y"))
			require.Equal(t, tc.want, time.Since(start), "the pause is over: %s", tc.why)
			require.Zero(t, rt.Paused())
		})
	}
}

func TestWhatWouldComeTooLateIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := 0
		rt := &httplimit.Transport{Base: serverFunc(func(r *http.Request) (*http.Response, error) {
			sent++
			return answering(429, "Retry-After", "10")(r)
		})}
		require.NoError(t, get(t.Context(), rt, "http://a:80/"))
		start := time.Now()

		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		body := &closing{Reader: strings.NewReader("x")}
		r, err := http.NewRequestWithContext(ctx, "POST", "http://a:80/", body)
		require.NoError(t, err)
		_, err = (&http.Client{Transport: rt}).Do(r)
		var pause *httplimit.PauseError
		require.ErrorAs(t, err, &pause)
		require.ErrorIs(t, err, ratelimit.ErrLimited)
		require.Equal(t, httplimit.PauseError{Key: "a:80", RetryAfter: 10 * time.Second}, *pause)
		require.Contains(t, err.Error(), "a:80 asked not to be called for another 10s")
		require.True(t, body.closed)
		require.Zero(t, time.Since(start), "at once")

		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(3*time.Second, cancel)
		require.ErrorIs(t, get(ctx, rt, "http://a:80/"), context.Canceled)
		require.Equal(t, 3*time.Second, time.Since(start))
		require.ErrorIs(t, get(ctx, rt, "http://a:80/"), context.Canceled)
		require.ErrorIs(t, get(ctx, rt, "http://b/"), context.Canceled, "a dead context sends nothing")
		require.Equal(t, 1, sent)
	})
}

type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error { c.closed = true; return nil }

func TestRequestsKeepToTheLimitOfTheirKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var mu sync.Mutex
		sent := map[string][]time.Duration{}
		rt := &httplimit.Transport{
			Limiter: keyed(t, ratelimit.Per(1, time.Second).Burst(2)),
			Key:     func(r *http.Request) string { return r.URL.Path },
			Base: serverFunc(func(r *http.Request) (*http.Response, error) {
				mu.Lock()
				defer mu.Unlock()
				sent[r.URL.Path] = append(sent[r.URL.Path], time.Since(start))
				return answering(200)(r)
			}),
		}
		var wg sync.WaitGroup
		for range 4 {
			for _, path := range []string{"/a", "/b"} {
				wg.Go(func() {
					if err := get(t.Context(), rt, "http://h"+path); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		want := []time.Duration{0, 0, time.Second, 2 * time.Second}
		require.Equal(t, map[string][]time.Duration{"/a": want, "/b": want}, sent)

		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		err := get(ctx, rt, "http://h/a")
		require.ErrorIs(t, err, ratelimit.ErrLimited)
		var limited *ratelimit.LimitError
		require.ErrorAs(t, err, &limited)
	})
}

// A pause that begins while requests wait for the limiter holds them back too.
func TestAPauseDuringTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var sent []time.Duration
		rt := &httplimit.Transport{
			Limiter: keyed(t, ratelimit.Per(1, time.Second).Burst(1)),
			Base: serverFunc(func(r *http.Request) (*http.Response, error) {
				sent = append(sent, time.Since(start))
				if len(sent) == 1 {
					time.Sleep(time.Second / 2)
					return answering(503, "Retry-After", "5")(r)
				}
				return answering(200)(r)
			}),
		}
		go get(t.Context(), rt, "http://a/")
		synctest.Wait()
		require.NoError(t, get(t.Context(), rt, "http://a/"))
		require.Equal(t, []time.Duration{0, 5500 * time.Millisecond}, sent)
	})
}

func TestTheThrottleLearnsFromTheAnswers(t *testing.T) {
	broken := errors.New("connection refused")
	for _, tc := range []struct {
		why             string
		server          serverFunc
		cancel          bool
		accepts, refuse uint64
	}{
		{"200", answering(200), false, 1, 0},
		{"500", answering(500), false, 1, 0},
		{"429", answering(429), false, 0, 1},
		{"503", answering(503), false, 0, 1},
		{"no connection", func(*http.Request) (*http.Response, error) { return nil, broken }, false, 0, 1},
		{"given up", nil, true, 0, 0},
	} {
		throttle, err := shed.NewThrottle[string](shed.ThrottleOptions{})
		require.NoError(t, err)
		rt := &httplimit.Transport{Throttle: throttle, Base: tc.server, Class: httplimit.ByMethod}
		ctx, cancel := context.WithCancel(t.Context())
		if tc.cancel {
			rt.Base = serverFunc(func(r *http.Request) (*http.Response, error) { cancel(); return nil, r.Context().Err() })
		}
		_ = get(ctx, rt, "http://a/")
		cancel()
		for key, s := range throttle.Backends() {
			require.Equal(t, "a", key)
			require.Equal(t, tc.accepts, s.Accepted[1], tc.why) // Sheddable
			require.Equal(t, tc.refuse, s.Refused[1], tc.why)
		}
	}
}

func TestTheThrottleRejects(t *testing.T) {
	throttle, err := shed.NewThrottle[string](shed.ThrottleOptions{Rand: func() uint64 { return 0 }})
	require.NoError(t, err)
	rt := &httplimit.Transport{Throttle: throttle, Base: answering(503)}
	var rejected error
	for range 100 {
		if rejected = get(t.Context(), rt, "http://a/"); rejected != nil {
			break
		}
	}
	require.ErrorIs(t, rejected, shed.ErrShed)
}

func TestPausesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		rt := &httplimit.Transport{Base: serverFunc(func(r *http.Request) (*http.Response, error) {
			n++
			return answering(429, "Retry-After", strconv.Itoa(1+n%30))(r)
		})}
		for i := range 3000 {
			require.NoError(t, get(t.Context(), rt, "http://h"+strconv.Itoa(i)+"/"))
		}
		require.Equal(t, 1024, rt.Paused())
		time.Sleep(time.Minute)
		require.NoError(t, get(t.Context(), rt, "http://new/"))
		require.Equal(t, 1, rt.Paused(), "what is over makes room")
	})
}

func TestTheTransportOverRealHTTP(t *testing.T) {
	h := newHandler(t, ratelimit.Per(1, time.Hour), httplimit.Options{Key: everybody}, ok)
	server := httptest.NewServer(h)
	defer server.Close()
	client := &http.Client{Transport: &httplimit.Transport{Base: server.Client().Transport}}
	do := func() (*http.Response, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, "GET", server.URL, nil)
		require.NoError(t, err)
		return client.Do(r)
	}
	res, err := do()
	require.NoError(t, err)
	res.Body.Close()
	require.Equal(t, `"default";r=0;t=3600`, res.Header.Get("RateLimit"))
	res, err = do() // the server said that nothing is left
	if err == nil {
		res.Body.Close()
	}
	require.ErrorIs(t, err, ratelimit.ErrLimited)
}

// idle is a RoundTripper that counts how often its idle connections were closed.
type idle struct {
	serverFunc
	closed *int
}

func (i idle) CloseIdleConnections() { *i.closed++ }

func TestIdleConnectionsCanBeClosed(t *testing.T) {
	closed := 0
	(&http.Client{Transport: &httplimit.Transport{Base: idle{answering(200), &closed}}}).CloseIdleConnections()
	require.Equal(t, 1, closed)
	(&http.Client{Transport: &httplimit.Transport{Base: answering(200)}}).CloseIdleConnections() // it cannot
}
