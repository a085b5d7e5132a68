package httpbalance_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balance/httpbalance"
)

// echo upgrades a connection and sends back what comes, until the other side has
// closed its half; then it says bye.
func echo(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "echo" {
		http.Error(w, "upgrade to echo", http.StatusUpgradeRequired)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	_, _ = io.Copy(conn, rw)
	_, _ = io.WriteString(conn, "bye")
}

func upgradeRequest(t *testing.T, target string) *http.Request {
	r := newRequest(t, context.Background(), "GET", target, nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "echo")
	return r
}

func TestAnUpgradedConnectionIsUnderWayUntilItIsClosed(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(echo))
	t.Cleanup(s.Close)
	b, told := newBalancer(t, s.URL)
	tr := &httpbalance.Transport{Balancer: b}
	resp, err := tr.RoundTrip(upgradeRequest(t, "http://service/"))
	require.NoError(t, err)
	require.Equal(t, 101, resp.StatusCode)
	conn, ok := resp.Body.(io.ReadWriteCloser)
	require.True(t, ok)
	for _, word := range []string{"hello", "again"} {
		_, err = io.WriteString(conn, word)
		require.NoError(t, err)
		got := make([]byte, len(word))
		_, err = io.ReadFull(conn, got)
		require.NoError(t, err)
		require.Equal(t, word, string(got))
	}
	require.NoError(t, conn.(interface{ CloseWrite() error }).CloseWrite())
	rest, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Equal(t, "bye", string(rest))
	require.EqualValues(t, 1, sum(b).InFlight, "the end of one direction is not the end")
	require.NoError(t, conn.Close())
	_ = conn.Close()
	got := sum(b)
	require.Equal(t, [3]int64{0, 1, 0}, [3]int64{got.InFlight, got.Picks, got.Failures})
	require.Empty(t, told.all())
}

func TestAnUpgradeWithoutHalfCloseSaysSo(t *testing.T) {
	t.Parallel()
	b, _ := newBalancer(t, "http://a")
	tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(*http.Request) (*http.Response, error) {
		return respond(101, duplex{&script{ctx: context.Background()}}), nil
	})}
	resp, err := tr.RoundTrip(newRequest(t, context.Background(), "GET", "http://service/", nil))
	require.NoError(t, err)
	require.ErrorIs(t, resp.Body.(interface{ CloseWrite() error }).CloseWrite(), http.ErrNotSupported)
	require.NoError(t, resp.Body.Close())
}

func TestReverseProxyBalancesRequestsAndUpgrades(t *testing.T) {
	t.Parallel()
	var urls []string
	for i := range 3 {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/ws" {
				echo(w, r)
				return
			}
			fmt.Fprintf(w, "%d %s %s", i, r.Host, r.URL)
		}))
		t.Cleanup(s.Close)
		urls = append(urls, s.URL)
	}
	b, told := newBalancer(t, urls...)
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "service"}) },
		Transport: &httpbalance.Transport{Balancer: b},
	})
	t.Cleanup(proxy.Close)

	got := map[string]int{}
	for range 9 {
		resp, err := proxy.Client().Get(proxy.URL + "/x?q=1")
		require.NoError(t, err)
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		_ = resp.Body.Close()
		got[string(text)]++
	}
	require.Equal(t, map[string]int{"0 service /x?q=1": 3, "1 service /x?q=1": 3, "2 service /x?q=1": 3}, got)

	conn, err := net.Dial("tcp", proxy.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, upgradeRequest(t, "http://proxy/ws").Write(conn))
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	require.Equal(t, 101, resp.StatusCode)
	_, err = io.WriteString(conn, "through two")
	require.NoError(t, err)
	word := make([]byte, len("through two"))
	_, err = io.ReadFull(r, word)
	require.NoError(t, err)
	require.Equal(t, "through two", string(word))
	require.EqualValues(t, 1, sum(b).InFlight)
	_ = conn.Close()
	settle(t, b)
	require.EqualValues(t, 10, sum(b).Picks)
	require.Zero(t, sum(b).Failures, told.all())
}

// The certificate is made out to a name, the backend is an address.
func TestTheCertificateIsCheckedForServerName(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.TLS.ServerName, " ", r.Host)
	}))
	s.Config.ErrorLog = discardLog
	t.Cleanup(s.Close)
	b, _ := newBalancer(t, s.URL)
	roots := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	for name, want := range map[string]string{
		"":             " service", // the certificate has 127.0.0.1 too, and there is no SNI for addresses
		"example.com":  "example.com service",
		"other.domain": "",
	} {
		base := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: name}}
		t.Cleanup(base.CloseIdleConnections)
		resp, err := (&http.Client{Transport: &httpbalance.Transport{Balancer: b, Base: base}}).Get("https://service/")
		if want == "" {
			require.ErrorAs(t, err, new(*tls.CertificateVerificationError))
			continue
		}
		require.NoError(t, err)
		got, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
}

func TestRelativeRedirectsAreBalancedAgain(t *testing.T) {
	t.Parallel()
	redirect := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/old" {
			w.Header().Set("Location", "new?q=1") // http.Redirect would make it a path
			w.WriteHeader(http.StatusFound)
			return
		}
		fmt.Fprint(w, r.Host, r.URL)
	})
	s := httptest.NewServer(redirect)
	t.Cleanup(s.Close)
	b, _ := newBalancer(t, s.URL)
	resp, err := (&http.Client{Transport: &httpbalance.Transport{Balancer: b}}).Get("http://service/old")
	require.NoError(t, err)
	got, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "service/new?q=1", string(got))
	require.EqualValues(t, 2, sum(b).Picks)
	require.Zero(t, sum(b).InFlight)
}

func TestASchemeOfItsOwnKeepsOtherSitesOut(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "elsewhere") }))
	t.Cleanup(other.Close)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			http.Redirect(w, r, other.URL, http.StatusFound)
		}
	}))
	t.Cleanup(s.Close)
	b, _ := newBalancer(t, s.URL)
	base := &http.Transport{}
	base.RegisterProtocol("users", &httpbalance.Transport{Balancer: b, Base: base})
	t.Cleanup(base.CloseIdleConnections)
	resp, err := (&http.Client{Transport: base}).Get("users://users/away")
	require.NoError(t, err)
	got, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "elsewhere", string(got))
	require.EqualValues(t, 1, sum(b).Picks)
}

// A backend that is gone: the balancer is told at the first request, and callers of
// idempotent methods notice nothing.
func TestAClosedServerIsRoutedAround(t *testing.T) {
	t.Parallel()
	dead := httptest.NewServer(nil)
	dead.Close()
	alive := httptest.NewServer(http.HandlerFunc(serveKinds))
	t.Cleanup(alive.Close)
	b, told := newBalancer(t, dead.URL, alive.URL)
	client := &http.Client{Transport: &httpbalance.Transport{Balancer: b}}
	for range 10 {
		resp, err := client.Post("http://service/post", "text/plain", strings.NewReader("nothing was sent, so even a POST is"))
		require.NoError(t, err)
		_, err = io.ReadAll(resp.Body)
		require.NoError(t, err)
	}
	require.NotEmpty(t, told.all())
	for _, err := range told.all() {
		var op *net.OpError
		require.ErrorAs(t, err, &op)
		require.Equal(t, "dial", op.Op)
	}
}

func TestNoGoroutineIsLeft(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(serveKinds))
	defer s.Close()
	b, _ := newBalancer(t, s.URL)
	base := &http.Transport{}
	tr := &httpbalance.Transport{Balancer: b, Base: base}
	ctx, cancel := context.WithCancel(context.Background())
	for range 20 {
		for _, kind := range kinds {
			resp, err := tr.RoundTrip(newRequest(t, ctx, kind.method, "http://service"+kind.path, nil))
			require.NoError(t, err)
			if kind.method == "" {
				_, _ = io.ReadAll(resp.Body)
			}
		}
	}
	cancel() // of the answers to POST, which nobody has read
	settle(t, b)
	base.CloseIdleConnections()
	buf := make([]byte, 1<<20)
	for start := time.Now(); ; runtime.Gosched() {
		stacks := string(buf[:runtime.Stack(buf, true)])
		if !strings.Contains(stacks, "httpbalance.(*exchange)") && !strings.Contains(stacks, "httpbalance.discard") {
			return
		}
		if time.Since(start) > 20*time.Second {
			t.Fatal(stacks)
		}
	}
}

var discardLog = log.New(io.Discard, "", 0)
