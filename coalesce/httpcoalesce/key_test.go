package httpcoalesce_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce/httpcoalesce"
)

func edit(r *http.Request, f func(*http.Request)) *http.Request {
	f(r)
	return r
}

// TestKey: what makes two requests different.
func TestKey(t *testing.T) {
	for _, tc := range []struct {
		name   string
		a, b   *http.Request
		shared bool
	}{
		{"equal", get("http://a/x?q=1"), get("http://a/x?q=1"), true},
		{"method", get("/"), request("HEAD", "/"), false},
		{"host", get("http://a/"), get("http://b/"), false},
		{"host, any case", get("/"), edit(get("/"), func(r *http.Request) { r.Host = "EXAMPLE.com" }), true},
		{"port", get("http://a/"), get("http://a:8080/"), false},
		{"scheme", get("http://a/"), edit(get("https://a/"), func(r *http.Request) { r.RequestURI = "http://a/" }), false},
		{"path", get("/x"), get("/X"), false},
		{"escaped path", get("/x%2fy"), get("/x/y"), false},
		{"query", get("/?a=1&b=2"), get("/?b=2&a=1"), false},
		{"empty query", get("/"), get("/?"), false},
		{"rewritten path", get("/a/x"), edit(get("/a/x"), func(r *http.Request) { r.URL.Path = "/x" }), false},
		{"path before a rewrite", get("/x"), edit(get("/x"), func(r *http.Request) { r.RequestURI = "/a/x" }), false},
		{"parts moved", get("/x?y"), edit(get("/x?y"), func(r *http.Request) { r.URL.Path, r.URL.RawQuery = "/xy", "" }), false},
		{"Accept", get("/", "Accept: text/html"), get("/", "Accept: text/plain"), false},
		{"Accept-Encoding", get("/", "Accept-Encoding: gzip"), get("/"), false},
		{"Accept-Language", get("/", "Accept-Language: de"), get("/", "Accept-Language: en"), false},
		{"Origin", get("/", "Origin: https://a"), get("/", "Origin: https://b"), false},
		{"User-Agent", get("/", "User-Agent: a"), get("/", "User-Agent: b"), true},
		{"the same in two fields", get("/", "Accept: x"), get("/", "Accept-Encoding: x"), false},
		{"too long", get("/" + strings.Repeat("x", httpcoalesce.MaxKey)), get("/" + strings.Repeat("x", httpcoalesce.MaxKey)), false},
		{"long", get("/" + strings.Repeat("x", 1000)), get("/" + strings.Repeat("x", 1000)), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, httpcoalesce.Options{})
				s.ask(tc.a)
				s.ask(tc.b)
				require.Equal(t, tc.shared, s.count() == 1)
				s.endAll()
			})
		})
	}
}

func TestKeyHeadersReplaceTheDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{KeyHeaders: []string{"x-tenant", "X-Tenant"}})
		s.ask(get("/", "X-Tenant: 1", "Accept: a"))
		s.ask(get("/", "X-Tenant: 1", "Accept: b"))
		require.Equal(t, 1, s.count())
		s.ask(get("/", "X-Tenant: 2", "Accept: a"))
		require.Equal(t, 2, s.count())
		s.endAll()
	})
}

func TestWhoAsks(t *testing.T) {
	alice := func(*http.Request) (string, bool) { return "alice", true }
	fromUser := func(r *http.Request) (string, bool) { return r.Header.Get("User"), r.Header.Get("User") != "" }
	certificate := func(r *http.Request) {
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}}
	}
	for _, tc := range []struct {
		name      string
		principal func(*http.Request) (string, bool)
		a, b      *http.Request
		response  string
		shared    bool
	}{
		{"nobody says, no credentials", nil, get("/"), get("/"), "", true},
		{"nobody says, Authorization", nil, get("/", "Authorization: x"), get("/", "Authorization: x"), "public", false},
		{"nobody says, Cookie", nil, get("/", "Cookie: a=b"), get("/", "Cookie: a=b"), "public", false},
		{"nobody says, client certificate", nil, edit(get("/"), certificate), edit(get("/"), certificate), "public", false},
		{"the same principal, Authorization", alice, get("/", "Authorization: x"), get("/", "Authorization: y"), "", true},
		{"the same principal, Cookie", alice, get("/", "Cookie: x"), get("/", "Cookie: y"), "", true},
		{"the same principal, private", alice, get("/"), get("/"), "private", false},
		{"two principals", fromUser, get("/", "User: alice"), get("/", "User: bob"), "public", false},
		{"principal with and without Authorization", alice, get("/", "Authorization: x"), get("/"), "public", false},
		{"not ok", fromUser, get("/"), get("/"), "public", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, httpcoalesce.Options{Principal: tc.principal})
				s.ask(tc.a)
				s.ask(tc.b)
				s.run(0).play(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Cache-Control", tc.response)
					w.WriteHeader(200)
				})
				require.Equal(t, tc.shared, s.count() == 1)
				s.endAll()
			})
		})
	}
}

func TestARequestWithABodyIsNotCollapsed(t *testing.T) {
	for name, body := range map[string]func(*http.Request){
		"length":  func(r *http.Request) { r.ContentLength = 1 },
		"unknown": func(r *http.Request) { r.ContentLength = -1 },
		"chunked": func(r *http.Request) { r.TransferEncoding = []string{"chunked"} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, httpcoalesce.Options{})
				s.ask(edit(get("/"), body))
				s.ask(edit(get("/"), body))
				require.Equal(t, 2, s.count())
				s.endAll()
				require.EqualValues(t, 2, s.Stats().Passed)
			})
		})
	}
}

// The handler's request is a copy: it can change it, and it may outlive the first
// client's, whose owner may change that.
func TestTheHandlersRequestIsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		r := get("/x", "Foo: 1")
		r.SetPathValue("id", "7")
		a := s.ask(r)
		s.run(0).play(func(w http.ResponseWriter, r *http.Request) {
			require.Equal(t, "7", r.PathValue("id"))
			require.Equal(t, "/x", r.RequestURI)
			n, err := io.Copy(io.Discard, r.Body)
			require.Zero(t, n)
			require.NoError(t, err)
			r.Header.Set("Foo", "2")
			r.URL.Path = "/y"
			varies("Foo")(w, r)
		})
		b := s.ask(get("/x", "Foo: 1"))
		s.endAll()
		require.Equal(t, "1", r.Header.Get("Foo"))
		require.Equal(t, "/x", r.URL.Path)
		require.Equal(t, "2 ", a.text())
		require.Equal(t, "2 ", b.text(), "found by what the client sent, not by what the handler made of it")
	})
}

// A handler that asks for its own URL would wait for itself.
func TestARequestFromInsideDoesNotWaitForItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		depth := 0
		var h http.Handler
		h, err := httpcoalesce.New(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			depth++
			switch depth {
			case 1:
				h.ServeHTTP(w, get("/fragment").WithContext(r.Context()))
			case 2:
				h.ServeHTTP(w, get("/").WithContext(r.Context()))
			default:
				_, _ = io.WriteString(w, "end")
			}
		}), httpcoalesce.Options{})
		require.NoError(t, err)
		b := ask(h, get("/"))
		synctest.Wait()
		require.Equal(t, "end", b.text())
		require.Equal(t, "done", b.state())
	})
}
