package httpbalance_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/balance/httpbalance"
)

// What the tests of net/http's own Transport demand of it holds through ours.

// viaBoth calls f with a client of a server over HTTP/1 and one over HTTP/2.
func viaBoth(t *testing.T, h http.HandlerFunc, f func(proto string, c *http.Client, b *balance.Balancer[*url.URL])) {
	for proto, s := range servers(t, h) {
		b, _ := newBalancer(t, s.URL)
		f(proto, &http.Client{Transport: &httpbalance.Transport{Balancer: b, Base: s.Client().Transport}}, b)
		require.Zero(t, sum(b).InFlight, proto)
		require.Zero(t, sum(b).Failures, proto)
	}
}

func TestHeadResponsesHaveALengthAndNoBody(t *testing.T) {
	t.Parallel()
	viaBoth(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "123")
	}, func(proto string, c *http.Client, _ *balance.Balancer[*url.URL]) {
		for range 2 { // the second on the same connection
			resp, err := c.Head("http://service/")
			require.NoError(t, err)
			require.EqualValues(t, 123, resp.ContentLength, proto)
			all, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Empty(t, all)
			require.NoError(t, resp.Body.Close())
		}
	})
}

func TestConnectionsAreUsedAgainAfterTheEndOfTheBody(t *testing.T) {
	t.Parallel()
	viaBoth(t, serveKinds, func(proto string, c *http.Client, _ *balance.Balancer[*url.URL]) {
		for i, path := range []string{"/length", "/chunked", "/204", "/304", "/empty", "/gzip", "/404", "/length"} {
			reused := false
			ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
				GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused },
			})
			resp, err := c.Do(newRequest(t, ctx, "GET", "http://service"+path, nil))
			require.NoError(t, err)
			_, err = io.ReadAll(resp.Body) // and no Close
			require.NoError(t, err)
			require.Equal(t, i > 0, reused, "%s %s", proto, path)
		}
	})
}

// The server answers before it has read the body, which is not the backend's failure.
func TestAnEarlyAnswerEndsAnUpload(t *testing.T) {
	t.Parallel()
	viaBoth(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		_, _ = io.WriteString(w, "too large")
	}, func(proto string, c *http.Client, _ *balance.Balancer[*url.URL]) {
		for range 3 {
			r := newRequest(t, context.Background(), "PUT", "http://service/", io.LimitReader(zeros{}, 1<<20))
			r.Header.Set("Expect", "100-continue")
			resp, err := c.Do(r)
			require.NoError(t, err, proto)
			require.Equal(t, 413, resp.StatusCode)
			all, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, "too large", string(all))
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestBodiesOfKnownAndUnknownLengthArrive(t *testing.T) {
	t.Parallel()
	viaBoth(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, r.ContentLength, " ", n, " ", r.Method)
	}, func(proto string, c *http.Client, _ *balance.Balancer[*url.URL]) {
		for want, body := range map[string]io.Reader{
			"5 5 POST":          strings.NewReader("hello"),
			"-1 1048576 POST":   io.LimitReader(zeros{}, 1<<20),
			"0 0 POST":          http.NoBody,
			"0 0 POST ":         nil,
			"300000 300000 PUT": strings.NewReader(strings.Repeat("x", 300000)),
		} {
			method := strings.Fields(want)[2]
			resp, err := c.Do(newRequest(t, context.Background(), method, "http://service/", body))
			require.NoError(t, err)
			got, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, strings.TrimSpace(want), string(got), proto)
		}
	})
}

func TestClosingALargeBodyEarlyDoesNotBlock(t *testing.T) {
	t.Parallel()
	viaBoth(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil { // without end
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	}, func(proto string, c *http.Client, b *balance.Balancer[*url.URL]) {
		for range 5 {
			resp, err := c.Get("http://service/")
			require.NoError(t, err)
			_, err = io.ReadFull(resp.Body, make([]byte, 1000))
			require.NoError(t, err)
			require.EqualValues(t, 1, sum(b).InFlight)
			require.NoError(t, resp.Body.Close())
			require.Zero(t, sum(b).InFlight)
		}
	})
}

// Requests, retries, failures and changes of the set at the same time.
func TestConcurrentRequestsAreAllAccountedFor(t *testing.T) {
	t.Parallel()
	var urls []string
	var served atomic.Int64
	for i := range 4 {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if n := served.Add(1); i == 0 && n%3 == 0 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			_, _ = io.Copy(w, r.Body)
		}))
		t.Cleanup(s.Close)
		urls = append(urls, s.URL)
	}
	b, _ := newBalancer(t, urls...)
	set, err := httpbalance.Static(urls...)
	require.NoError(t, err)
	base := &http.Transport{MaxIdleConnsPerHost: 10}
	t.Cleanup(base.CloseIdleConnections)
	tr := &httpbalance.Transport{Balancer: b, Base: base}
	client := &http.Client{Transport: tr}
	stop := make(chan struct{})
	var updates, clients sync.WaitGroup
	updates.Go(func() {
		for n := 1; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := b.Update(set[:2+n%3]); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range 8 {
		clients.Go(func() {
			for j := range 60 {
				want := fmt.Sprint(i, " ", j)
				ctx, cancel := context.WithCancel(context.Background())
				resp, err := client.Do(newRequest(t, ctx, "PUT", "http://service/", strings.NewReader(want)))
				if err != nil {
					t.Error(err)
				} else {
					got, err := io.ReadAll(resp.Body)
					if err != nil || string(got) != want {
						t.Errorf("%q, %v; expected %q", got, err, want)
					}
				}
				cancel()
			}
		})
	}
	clients.Wait()
	close(stop)
	updates.Wait()
	require.NoError(t, b.Update(set))
	settle(t, b)
	require.EqualValues(t, 8*60+tr.Stats().Retries, served.Load())
}

// The set becomes empty while a request fails.
func TestARetryThatFindsNoBackendsLeavesTheFirstError(t *testing.T) {
	t.Parallel()
	b, _ := newBalancer(t, "http://a", "http://b")
	tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(*http.Request) (*http.Response, error) {
		return nil, errors.Join(errReset, b.Update(nil))
	})}
	_, err := tr.RoundTrip(newRequest(t, context.Background(), "GET", "http://service/", nil))
	require.ErrorIs(t, err, errReset)
	require.NotErrorIs(t, err, balance.ErrNoBackends)
	require.Equal(t, httpbalance.Stats{}, tr.Stats())
}
