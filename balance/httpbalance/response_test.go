package httpbalance_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balance/httpbalance"
)

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
