package httpbalance_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/balance/httpbalance"
)

// roundTripper is a base transport.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// unhealthy switches off all that makes a balancer pick a backend more or less often.
var unhealthy = balance.Health{Penalty: -1, Consecutive: -1, SuccessRate: -1, SlowStart: -1}

// outcomes collects what a balancer is told of requests that did not just succeed.
type outcomes struct {
	mu   sync.Mutex
	errs []error
}

func (o *outcomes) classify(err error) balance.Outcome {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.errs = append(o.errs, err)
	}
	switch {
	case err == nil:
		return balance.Success
	case errors.Is(err, context.Canceled):
		return balance.Ignored
	}
	return balance.Failure
}

func (o *outcomes) all() []error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]error{}, o.errs...)
}

// newBalancer returns a balancer of the URLs that takes turns, and what it is told.
func newBalancer(t require.TestingT, urls ...string) (*balance.Balancer[*url.URL], *outcomes) {
	var o outcomes
	b, err := balance.New[*url.URL](balance.RoundRobin(), balance.Options{Classify: o.classify, Health: unhealthy})
	require.NoError(t, err)
	set, err := httpbalance.Static(urls...)
	require.NoError(t, err)
	require.NoError(t, b.Update(set))
	return b, &o
}

// sum adds up the counts of all backends.
func sum(b *balance.Balancer[*url.URL]) (s balance.Stats) {
	for _, one := range b.Stats() {
		s.InFlight += one.InFlight
		s.Picks += one.Picks
		s.Failures += one.Failures
	}
	return s
}

// settle waits until no request is under way, which is soon where a context has ended.
func settle(t *testing.T, b *balance.Balancer[*url.URL]) {
	t.Helper()
	for start := time.Now(); sum(b).InFlight != 0; runtime.Gosched() {
		if time.Since(start) > 20*time.Second {
			require.Zero(t, sum(b).InFlight, "requests under way")
		}
	}
}

func newRequest(t require.TestingT, ctx context.Context, method, target string, body io.Reader) *http.Request {
	r, err := http.NewRequestWithContext(ctx, method, target, body)
	require.NoError(t, err)
	return r
}

// respond returns a response with the body.
func respond(code int, body io.ReadCloser) *http.Response {
	return &http.Response{
		StatusCode: code, ProtoMajor: 1, ProtoMinor: 1, ContentLength: -1,
		Header: http.Header{}, Body: body,
	}
}

func text(s string) io.ReadCloser { return io.NopCloser(strings.NewReader(s)) }

// servers are an HTTP/1 and an HTTP/2 server; their Client has a base transport.
func servers(t *testing.T, h http.HandlerFunc) map[string]*httptest.Server {
	s1 := httptest.NewServer(h)
	s2 := httptest.NewUnstartedServer(h)
	s2.EnableHTTP2 = true
	s2.StartTLS()
	for _, s := range []*httptest.Server{s1, s2} {
		t.Cleanup(s.Close)
		s.Client().Transport.(*http.Transport).ExpectContinueTimeout = time.Minute
	}
	return map[string]*httptest.Server{"http1": s1, "http2": s2}
}

// What a base transport other than net/http's may return.
func TestOddBaseTransportsEndThePick(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		base   roundTripper
		told   string // what the balancer is told, if not success
		fails  bool
		method string
	}{
		"error":       {base: func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }, told: "unexpected EOF", fails: true},
		"nothing":     {base: func(*http.Request) (*http.Response, error) { return nil, nil }, told: "httpbalance: the base transport returned neither a response nor an error", fails: true},
		"panic":       {base: func(*http.Request) (*http.Response, error) { panic("boom") }, told: "httpbalance: the base transport did not return", fails: true},
		"goexit":      {base: func(*http.Request) (*http.Response, error) { runtime.Goexit(); return nil, nil }, told: "httpbalance: the base transport did not return", fails: true},
		"nil body":    {base: func(*http.Request) (*http.Response, error) { return respond(200, nil), nil }},
		"no body":     {base: func(*http.Request) (*http.Response, error) { return respond(200, http.NoBody), nil }},
		"HEAD, body":  {base: func(*http.Request) (*http.Response, error) { return respond(200, text("")), nil }, method: "HEAD"},
		"204, body":   {base: func(*http.Request) (*http.Response, error) { return respond(204, text("")), nil }},
		"101 nothing": {base: func(*http.Request) (*http.Response, error) { return respond(101, http.NoBody), nil }},
	} {
		b, told := newBalancer(t, "http://a")
		tr := &httpbalance.Transport{Balancer: b, Base: tc.base, Retries: -1}
		upload := &tracked{Reader: strings.NewReader("x")}
		r := newRequest(t, context.Background(), tc.method, "http://service/", upload)
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer func() { _ = recover() }()
			if resp, err := tr.RoundTrip(r); err == nil && resp.Body == nil {
				panic("a response without a body")
			}
		}()
		<-done
		got := sum(b)
		require.Equal(t, [2]int64{0, 1}, [2]int64{got.InFlight, got.Picks}, name)
		require.Equal(t, tc.fails, got.Failures == 1, name)
		if tc.told != "" {
			require.Len(t, told.all(), 1, name)
			require.EqualError(t, told.all()[0], tc.told, name)
		} else {
			require.Empty(t, told.all(), name)
		}
		if name == "panic" || name == "goexit" {
			require.True(t, upload.closed.Load(), name)
		}
	}
}

// tracked is a body that knows whether it was closed.
type tracked struct {
	io.Reader
	closed atomic.Bool
}

func (b *tracked) Close() error { b.closed.Store(true); return nil }

func TestTheRequestBodyIsClosedOnEveryWayOut(t *testing.T) {
	t.Parallel()
	ok, _ := newBalancer(t, "http://a")
	none, _ := newBalancer(t)
	hostless, err := balance.New[*url.URL](balance.Random(), balance.Options{})
	require.NoError(t, err)
	require.NoError(t, hostless.Update([]balance.Backend[*url.URL]{{ID: "x", Value: &url.URL{Path: "/"}}}))
	valueless, err := balance.New[*url.URL](balance.Random(), balance.Options{})
	require.NoError(t, err)
	require.NoError(t, valueless.Update([]balance.Backend[*url.URL]{{ID: "y"}}))
	never := roundTripper(func(*http.Request) (*http.Response, error) { panic("must not be called") })
	for name, tc := range map[string]struct {
		b      *balance.Balancer[*url.URL]
		change func(*http.Request)
		err    string
	}{
		"no balancer": {nil, nil, "httpbalance: Transport.Balancer is nil, expected one from balance.New"},
		"no backends": {none, nil, "balance: no backends"},
		"no URL":      {ok, func(r *http.Request) { r.URL = nil }, "httpbalance: URL of the request is nil"},
		"no header":   {ok, func(r *http.Request) { r.Header = nil }, "httpbalance: Header of the request is nil"},
		"no host":     {hostless, nil, `httpbalance: the URL of backend "x" is /, expected one with a scheme and a host`},
		"no value":    {valueless, nil, `httpbalance: the URL of backend "y" is <nil>, expected one with a scheme and a host`},
	} {
		body := &tracked{Reader: strings.NewReader("x")}
		r := newRequest(t, context.Background(), "POST", "http://service/", body)
		if tc.change != nil {
			tc.change(r)
		}
		_, err := (&httpbalance.Transport{Balancer: tc.b, Base: never}).RoundTrip(r)
		require.EqualError(t, err, tc.err, name)
		require.True(t, body.closed.Load(), name)
		if tc.b != nil {
			require.Zero(t, sum(tc.b).InFlight, name)
		}
	}
	_, err = (&httpbalance.Transport{Balancer: none}).RoundTrip(newRequest(t, context.Background(), "GET", "http://service/", nil))
	require.ErrorIs(t, err, balance.ErrNoBackends)
}

func TestTheRequestOfTheCallerIsNotChanged(t *testing.T) {
	t.Parallel()
	b, _ := newBalancer(t, "http://a/base", "https://b:8443")
	sent := 0
	tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(r *http.Request) (*http.Response, error) {
		sent++
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
		return respond(503, text("")), nil
	})}
	body := &tracked{Reader: strings.NewReader("x")}
	r := newRequest(t, context.Background(), "PUT", "http://user:secret@service/a%2Fb/c?q=1#f", body)
	r.GetBody = func() (io.ReadCloser, error) { return text("x"), nil }
	r.Header.Set("K", "v")
	r.Trailer = http.Header{"T": nil}
	before := r.Clone(r.Context())
	resp, err := tr.RoundTrip(r)
	require.NoError(t, err)
	require.Same(t, r, resp.Request)
	require.Equal(t, 2, sent, "one was a retry")
	require.Same(t, body, r.Body)
	before.GetBody, r.GetBody = nil, nil // functions do not compare
	require.Equal(t, before, r)
}

func TestURLsAreRewrittenAndTheHostIsKept(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ backend, method, target, host, wantURL, wantHost string }{
		{"http://10.0.0.1:81", "GET", "http://service/x?q=1", "", "http://10.0.0.1:81/x?q=1", "service"},
		{"http://10.0.0.1", "GET", "http://service/x", "virtual", "http://10.0.0.1:80/x", "virtual"},
		{"https://10.0.0.1", "GET", "http://service:99", "", "https://10.0.0.1:443", "service:99"},
		{"http://a/base", "GET", "http://service/x", "", "http://a:80/base/x", "service"},
		{"http://a/base/", "GET", "http://service/x/", "", "http://a:80/base/x/", "service"},
		{"http://a/base", "GET", "http://service", "", "http://a:80/base", "service"},
		{"http://a/", "GET", "http://service/", "", "http://a:80/", "service"},
		{"http://a/b%2Fc", "GET", "http://service/x y", "", "http://a:80/b%2Fc/x%20y", "service"},
		{"http://a/b", "GET", "http://service/x%2Fy//../z", "", "http://a:80/b/x%2Fy//../z", "service"},
		{"http://a/b", "OPTIONS", "*", "service", "http://a:80/*", "service"},
		{"http://a/b", "GET", "http://service/rootless", "", "http://a:80/b/rootless", "service"},
		{"http://[::1]:81/b", "GET", "http://service/?", "", "http://[::1]:81/b/?", "service"},
	} {
		b, _ := newBalancer(t, tc.backend)
		var got *http.Request
		tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(r *http.Request) (*http.Response, error) {
			got = r
			return respond(200, http.NoBody), nil
		})}
		r := newRequest(t, context.Background(), tc.method, tc.target, nil)
		if tc.target == "http://service/rootless" {
			r.URL.Path = "rootless"
		}
		if tc.host != "" {
			r.Host = tc.host
		}
		_, err := tr.RoundTrip(r)
		require.NoError(t, err)
		require.Equal(t, tc.wantURL, got.URL.String(), tc.target)
		require.Equal(t, tc.wantHost, got.Host, tc.target)
		if tc.target == "*" { // is a path
			require.Equal(t, "*", got.URL.RequestURI())
		}
	}
}

func TestCloseIdleConnectionsReachesTheBase(t *testing.T) {
	t.Parallel()
	base := &idle{}
	(&http.Client{Transport: &httpbalance.Transport{Base: base}}).CloseIdleConnections()
	require.Equal(t, 1, base.closed)
	(&httpbalance.Transport{Base: roundTripper(nil)}).CloseIdleConnections() // has none
}

type idle struct {
	http.RoundTripper
	closed int
}

func (i *idle) CloseIdleConnections() { i.closed++ }
