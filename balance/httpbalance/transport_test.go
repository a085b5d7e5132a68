package httpbalance_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

// kinds are the responses of a server that a client has to cope with, by path.
var kinds = []struct {
	path   string
	method string
	bodied bool
	fails  bool // by its status
	cut    bool // the body breaks off
}{
	{path: "/length", bodied: true},
	{path: "/large", bodied: true},
	{path: "/chunked", bodied: true},
	{path: "/trailer", bodied: true},
	{path: "/gzip", bodied: true},
	{path: "/post", method: "POST", bodied: true},
	{path: "/404", bodied: true},
	{path: "/501", bodied: true},
	{path: "/500", bodied: true, fails: true},
	{path: "/429", bodied: true, fails: true},
	{path: "/cut", bodied: true, cut: true},
	{path: "/cut503", bodied: true, cut: true, fails: true},
	{path: "/empty"},
	{path: "/204"},
	{path: "/304"},
	{path: "/length", method: "HEAD"},
	{path: "/chunked", method: "HEAD"},
	{path: "/500", method: "HEAD", fails: true},
}

func serveKinds(w http.ResponseWriter, r *http.Request) {
	flush := func() { _ = http.NewResponseController(w).Flush() }
	write := func(s string) { _, _ = io.WriteString(w, s) }
	_, _ = io.Copy(io.Discard, r.Body)
	switch r.URL.Path {
	case "/length", "/post":
		w.Header().Set("Content-Length", "5")
		write("hello")
	case "/large":
		write(strings.Repeat("x", 1<<20))
	case "/chunked":
		write("hel")
		flush()
		write("lo")
	case "/trailer":
		w.Header().Set("Trailer", "Sum")
		write("hello")
		flush()
		w.Header().Set("Sum", "5")
	case "/gzip":
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, "hello")
		_ = z.Close()
	case "/cut", "/cut503":
		w.Header().Set("Content-Length", "1000")
		if r.URL.Path == "/cut503" {
			w.WriteHeader(503)
		}
		write("half")
		flush()
		panic(http.ErrAbortHandler)
	case "/empty":
		w.Header().Set("Content-Length", "0")
	default:
		var code int
		_, _ = fmt.Sscanf(r.URL.Path, "/%d", &code)
		w.WriteHeader(code)
		if code != 204 && code != 304 {
			write("hello")
		}
	}
}

// ends are what callers do with a body.
var ends = map[string]func(*http.Response, context.CancelFunc){
	"eof":         func(r *http.Response, _ context.CancelFunc) { _, _ = io.ReadAll(r.Body) },
	"eof close":   func(r *http.Response, _ context.CancelFunc) { _, _ = io.ReadAll(r.Body); _ = r.Body.Close() },
	"copy":        func(r *http.Response, _ context.CancelFunc) { _, _ = io.Copy(io.Discard, r.Body); _ = r.Body.Close() },
	"close":       func(r *http.Response, _ context.CancelFunc) { _ = r.Body.Close() },
	"close twice": func(r *http.Response, _ context.CancelFunc) { _ = r.Body.Close(); _ = r.Body.Close() },
	"close read":  func(r *http.Response, _ context.CancelFunc) { _ = r.Body.Close(); _, _ = io.ReadAll(r.Body) },
	"part": func(r *http.Response, _ context.CancelFunc) {
		_, _ = r.Body.Read(make([]byte, 1))
		_ = r.Body.Close()
	},
	"cancel read":  func(r *http.Response, c context.CancelFunc) { c(); _, _ = io.ReadAll(r.Body); _ = r.Body.Close() },
	"cancel close": func(r *http.Response, c context.CancelFunc) { c(); _ = r.Body.Close() },
	"forget":       func(_ *http.Response, c context.CancelFunc) { c() },
}

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

func TestEveryResponseEndsItsPickOnce(t *testing.T) {
	t.Parallel()
	for proto, s := range servers(t, serveKinds) {
		for _, kind := range kinds {
			for name, end := range ends {
				b, told := newBalancer(t, s.URL)
				tr := &httpbalance.Transport{Balancer: b, Base: s.Client().Transport, Retries: -1}
				ctx, cancel := context.WithCancel(context.Background())
				method, body := kind.method, io.Reader(nil)
				if method == "POST" {
					body = strings.NewReader("body")
				}
				what := fmt.Sprintf("%s %s %s, %s", proto, method, kind.path, name)
				resp, err := tr.RoundTrip(newRequest(t, ctx, method, "http://service"+kind.path, body))
				require.NoError(t, err, what)
				if !kind.bodied {
					require.Zero(t, sum(b).InFlight, "%s: nothing to wait for", what)
				} else {
					require.EqualValues(t, 1, sum(b).InFlight, "%s: before the end", what)
				}
				end(resp, cancel)
				if strings.HasPrefix(name, "cancel") || name == "forget" {
					settle(t, b)
				}
				cancel()
				got := sum(b)
				require.Zero(t, got.InFlight, what)
				require.EqualValues(t, 1, got.Picks, what)
				failures := int64(0)
				if kind.fails || kind.cut && (strings.HasPrefix(name, "eof") || name == "copy") {
					failures = 1
				}
				require.Equal(t, failures, got.Failures, "%s: %v", what, told.all())
				require.LessOrEqual(t, len(told.all()), 1, what)
			}
		}
	}
}

func TestBodiesArriveWholeWithTrailers(t *testing.T) {
	t.Parallel()
	for proto, s := range servers(t, serveKinds) {
		b, _ := newBalancer(t, s.URL)
		client := &http.Client{Transport: &httpbalance.Transport{Balancer: b, Base: s.Client().Transport}}
		for path, want := range map[string]string{"/length": "hello", "/gzip": "hello", "/trailer": "hello", "/large": strings.Repeat("x", 1<<20)} {
			resp, err := client.Get("http://service" + path)
			require.NoError(t, err)
			got, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, want, string(got), proto+path)
			require.Equal(t, path == "/gzip", resp.Uncompressed)
			if path == "/trailer" {
				require.Equal(t, "5", resp.Trailer.Get("Sum"))
			}
			require.Equal(t, "http://service"+path, resp.Request.URL.String())
		}
	}
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

func TestACallerThatGivesUpIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		context func() (context.Context, context.CancelFunc)
		after   time.Duration
		fails   bool
		told    error
	}{
		"cancel": {func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(context.Background())
			time.AfterFunc(3*time.Second, func() { cancel(errors.New("user went home")) })
			return ctx, func() { cancel(nil) }
		}, 3 * time.Second, false, context.Canceled},
		"deadline": {func() (context.Context, context.CancelFunc) {
			return context.WithTimeoutCause(context.Background(), 2*time.Second, errors.New("too slow"))
		}, 2 * time.Second, true, context.DeadlineExceeded},
	} {
		for _, where := range []string{"headers", "body", "forgotten body"} {
			synctest.Test(t, func(t *testing.T) {
				b, told := newBalancer(t, "http://a", "http://b")
				tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(r *http.Request) (*http.Response, error) {
					if where == "headers" {
						<-r.Context().Done()
						return nil, context.Cause(r.Context())
					}
					return respond(200, &stuck{r.Context()}), nil
				})}
				ctx, cancel := tc.context()
				defer cancel()
				start := time.Now()
				resp, err := tr.RoundTrip(newRequest(t, ctx, "GET", "http://service/", nil))
				switch where {
				case "body":
					require.NoError(t, err)
					require.EqualValues(t, 1, sum(b).InFlight)
					_, err = io.ReadAll(resp.Body)
					require.Error(t, err)
				case "forgotten body":
					require.NoError(t, err)
					time.Sleep(tc.after)
				default:
					require.Error(t, err)
				}
				require.Equal(t, tc.after, time.Since(start), "%s at %s", name, where)
				synctest.Wait()
				got := sum(b)
				require.Equal(t, [2]int64{0, 1}, [2]int64{got.InFlight, got.Picks}, "%s at %s", name, where)
				require.Equal(t, tc.fails, got.Failures == 1, "%s at %s", name, where)
				require.Equal(t, []error{tc.told}, told.all())
			})
		}
	}
}

// stuck is a body from which nothing comes.
type stuck struct{ ctx context.Context }

func (b *stuck) Read([]byte) (int, error) { <-b.ctx.Done(); return 0, context.Cause(b.ctx) }
func (b *stuck) Close() error             { return nil }

// http.Client sets the older Cancel too, for its Timeout.
func TestTheTimeoutOfAClientIsADeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, told := newBalancer(t, "http://a")
		client := &http.Client{Timeout: time.Second, Transport: &httpbalance.Transport{Balancer: b, Base: roundTripper(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})}}
		_, err := client.Get("http://service/")
		require.Error(t, err)
		require.Equal(t, []error{context.DeadlineExceeded}, told.all())
		require.EqualValues(t, 1, sum(b).Failures)
	})
}

// late is a context whose deadline has passed before its timer has noticed.
type late struct{ context.Context }

func (late) Deadline() (time.Time, bool) { return time.Now().Add(-1), true }

func TestAClosedCancelChannelAfterTheDeadlineIsTheDeadline(t *testing.T) {
	t.Parallel()
	b, told := newBalancer(t, "http://a")
	gone := make(chan struct{})
	close(gone)
	tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(*http.Request) (*http.Response, error) {
		return nil, errors.New("request canceled")
	})}
	r := newRequest(t, late{context.Background()}, "GET", "http://service/", nil)
	r.Cancel = gone //lint:ignore SA1019 http.Client sets it
	_, err := tr.RoundTrip(r)
	require.Error(t, err)
	require.Equal(t, []error{context.DeadlineExceeded}, told.all())
}

func TestAClosedCancelChannelIsACancellation(t *testing.T) {
	t.Parallel()
	b, told := newBalancer(t, "http://a", "http://b")
	gone := make(chan struct{})
	tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(*http.Request) (*http.Response, error) {
		close(gone)
		return nil, errors.New("request canceled")
	})}
	r := newRequest(t, context.Background(), "GET", "http://service/", nil)
	r.Cancel = gone //lint:ignore SA1019 older callers set it
	_, err := tr.RoundTrip(r)
	require.EqualError(t, err, "request canceled")
	require.Equal(t, []error{context.Canceled}, told.all())
}

// A proxy whose client goes away in the middle of an upload must not blame a backend,
// or one bad client would have all of them ejected.
func TestABodyThatCannotBeReadIsNotTheBackendsFault(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(serveKinds))
	t.Cleanup(s.Close)
	b, told := newBalancer(t, s.URL, s.URL+"/other")
	tr := &httpbalance.Transport{Balancer: b}
	errUpload := errors.New("client went away")
	body := io.MultiReader(strings.NewReader("half"), readerFunc(func([]byte) (int, error) { return 0, errUpload }))
	r := newRequest(t, context.Background(), "PUT", "http://service/post", body)
	r.GetBody = func() (io.ReadCloser, error) { return text("whole"), nil }
	_, err := tr.RoundTrip(r)
	require.ErrorIs(t, err, errUpload)
	require.Equal(t, []error{context.Canceled}, told.all())
	require.EqualValues(t, 1, sum(b).Picks, "no retry")
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// The base may close the body because of another failure, which a read of a pipe then
// notices too.
func TestABodyThatTheBaseClosedDoesNotExcuseTheBackend(t *testing.T) {
	t.Parallel()
	b, told := newBalancer(t, "http://a")
	errReset := errors.New("reset")
	tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(r *http.Request) (*http.Response, error) {
		_ = r.Body.Close()
		_, err := r.Body.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.ErrClosedPipe)
		return nil, errReset
	})}
	pipe, _ := io.Pipe()
	_, err := tr.RoundTrip(newRequest(t, context.Background(), "POST", "http://service/", pipe))
	require.ErrorIs(t, err, errReset)
	require.Equal(t, []error{errReset}, told.all())
}

// latencyOf returns what a balancer has learnt after one request.
func latencyOf(t *testing.T, tr *httpbalance.Transport) time.Duration {
	b, err := balance.New[*url.URL](balance.LeastLatency(balance.LatencyOptions{}), balance.Options{Health: unhealthy})
	require.NoError(t, err)
	set, err := httpbalance.Static("http://a")
	require.NoError(t, err)
	require.NoError(t, b.Update(set))
	tr.Balancer = b
	resp, err := tr.RoundTrip(newRequest(t, context.Background(), "GET", "http://service/", nil))
	require.NoError(t, err)
	time.Sleep(time.Minute) // a slow reader
	_, _ = io.ReadAll(resp.Body)
	for _, s := range b.Stats() {
		return s.Latency
	}
	return -1
}

func TestLatencyIsTheTimeToTheHeaders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		base := roundTripper(func(*http.Request) (*http.Response, error) {
			time.Sleep(250 * time.Millisecond)
			return respond(200, text("hello")), nil
		})
		require.InDelta(t, 250*time.Millisecond, latencyOf(t, &httpbalance.Transport{Base: base}), float64(time.Millisecond))
		atOnce := roundTripper(func(*http.Request) (*http.Response, error) { return respond(200, text("hello")), nil })
		require.Equal(t, time.Nanosecond, latencyOf(t, &httpbalance.Transport{Base: atOnce}), "known, though the clock did not move")
		stream := func(r *http.Request) bool { return r.URL.Path == "/" }
		require.Zero(t, latencyOf(t, &httpbalance.Transport{Base: base, Stream: stream}))
	})
}

// A backend that fails at once must not be taken for a fast one.
func TestAFailingStatusIsNotLearntAsALowLatency(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, err := balance.New[*url.URL](balance.LeastLatency(balance.LatencyOptions{}), balance.Options{Health: unhealthy})
		require.NoError(t, err)
		set, err := httpbalance.Static("http://a")
		require.NoError(t, err)
		require.NoError(t, b.Update(set))
		code := 200
		tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(*http.Request) (*http.Response, error) {
			if code == 200 {
				time.Sleep(time.Second)
			}
			return respond(code, http.NoBody), nil
		})}
		for _, code = range []int{200, 500, 500, 500, 500, 500, 500} {
			_, err := tr.RoundTrip(newRequest(t, context.Background(), "GET", "http://service/", nil))
			require.NoError(t, err)
			time.Sleep(10 * time.Second) // in which a new latency would outweigh an old one
		}
		for _, s := range b.Stats() {
			require.InDelta(t, time.Second, s.Latency, float64(100*time.Millisecond))
		}
	})
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

func TestABodyThatWritesItselfStillDoes(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err, sink error
		fails     bool
		open      int64 // after the copy
	}{
		"whole":       {},
		"body breaks": {err: io.ErrUnexpectedEOF, fails: true},
		"sink breaks": {sink: io.ErrShortWrite, open: 1},
	} {
		b, _ := newBalancer(t, "http://a")
		w := &writerTo{err: tc.err}
		tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(*http.Request) (*http.Response, error) {
			return respond(200, w), nil
		})}
		resp, err := tr.RoundTrip(newRequest(t, context.Background(), "GET", "http://service/", nil))
		require.NoError(t, err)
		var out bytes.Buffer
		_, err = io.Copy(&sink{&out, tc.sink}, resp.Body)
		if tc.err == nil && tc.sink == nil {
			require.NoError(t, err)
			require.Equal(t, "hello", out.String())
		} else {
			require.Error(t, err, name)
		}
		require.True(t, w.used, name)
		require.Equal(t, tc.open, sum(b).InFlight, name)
		require.NoError(t, resp.Body.Close())
		require.Zero(t, sum(b).InFlight, name)
		require.Equal(t, tc.fails, sum(b).Failures == 1, name)
	}
}

type writerTo struct {
	err  error
	used bool
}

func (w *writerTo) Read([]byte) (int, error) { panic("read instead of written") }
func (w *writerTo) Close() error             { return nil }
func (w *writerTo) WriteTo(to io.Writer) (int64, error) {
	w.used = true
	if n, err := io.WriteString(to, "hello"); err != nil {
		return int64(n), err
	}
	return 5, w.err
}

type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	return s.w.Write(p)
}
