package httplimit_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/netip"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/httplimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// everything is a handler that does what handlers do.
func everything(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	switch r.URL.Path {
	case "/stream", "/sse":
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 5 {
			if _, err := fmt.Fprintf(w, "data: %d\n\n", i); err != nil {
				return
			}
			if rc.Flush() != nil {
				return
			}
		}
	case "/early":
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		_, _ = io.WriteString(w, "late")
	case "/duplex":
		_ = rc.EnableFullDuplex()
		_, _ = io.Copy(w, r.Body)
	case "/deadline":
		_ = rc.SetReadDeadline(time.Now().Add(time.Minute))
		_ = rc.SetWriteDeadline(time.Now().Add(time.Minute))
		_, _ = io.Copy(io.Discard, r.Body)
	case "/big":
		_, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, 10))
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
	case "/abort":
		_, _ = io.WriteString(w, "half")
		panic(http.ErrAbortHandler)
	case "/panic":
		panic("mine")
	case "/gone":
		_, _ = io.Copy(io.Discard, r.Body) // until then HTTP/1.1 does not look whether the client is there
		<-r.Context().Done()
	case "/none":
		w.WriteHeader(http.StatusNoContent)
	default:
		httplimit.SetCost(r.Context(), 2)
		_, _ = io.WriteString(w, "served")
	}
}

// Servers of each kind, with and without a proxy in front, are asked for everything at
// once. Afterwards all is given back, and every request was counted once.
func TestUnderMixedTraffic(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		for _, proxied := range []bool{false, true} {
			t.Run(fmt.Sprintf("http2=%v proxied=%v", http2, proxied), func(t *testing.T) { mixedTraffic(t, http2, proxied) })
		}
	}
}

func mixedTraffic(t *testing.T, http2, proxied bool) {
	inProgress, err := shed.NewKeyedConcurrency[string](6)
	require.NoError(t, err)
	gate := concurrency(t, shed.ConcurrencyOptions{Limit: 3, Queue: shed.Queue{Max: 1, Target: time.Second}})
	var modes, arrived atomic.Uint64
	m := limits(t, keyed(t, ratelimit.Per(200, time.Hour)), httplimit.Options{
		Key:  clientIP(t, httplimit.ClientIPOptions{Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}),
		Cost: func(*http.Request) int64 { return 3 }, Settle: true, InProgress: inProgress,
		Also: []httplimit.Policy{{Name: "site", Limiter: keyed(t, ratelimit.Per(250, time.Hour)), Key: everybody}},
		Mode: func(*http.Request) httplimit.Mode { return httplimit.Mode(modes.Add(1) % 5) },
	})
	s := shedding(t, gate, httplimit.ShedOptions{Class: httplimit.ByMethod})
	budget, err := httplimit.Budget(time.Minute)
	require.NoError(t, err)
	h := budget(m.Wrap(s.Wrap(http.HandlerFunc(everything))))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived.Add(1)
		h.ServeHTTP(w, r)
	}))
	server.EnableHTTP2 = http2
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	if http2 {
		server.StartTLS()
	} else {
		server.Start()
	}
	defer server.Close()
	front := server
	if proxied {
		target, err := url.Parse(server.URL)
		require.NoError(t, err)
		front = httptest.NewUnstartedServer(&httputil.ReverseProxy{
			Transport: server.Client().Transport,
			Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target); r.SetXForwarded() },
			ErrorLog:  log.New(io.Discard, "", 0),
		})
		front.Config.ErrorLog = server.Config.ErrorLog
		front.EnableHTTP2 = http2
		if http2 {
			front.StartTLS()
		} else {
			front.Start()
		}
		defer front.Close()
	}
	client := &http.Client{Transport: &httplimit.Transport{Base: front.Client().Transport, MaxPause: time.Millisecond}}
	var wg sync.WaitGroup
	for g := range 10 {
		wg.Go(func() {
			for i := range 22 {
				path := []string{"/", "/stream", "/early", "/duplex", "/deadline", "/big", "/abort", "/panic", "/gone", "/none", "/sse"}[(g+i)%11]
				method := []string{"GET", "POST", "HEAD", "OPTIONS", "PUT"}[(g*3+i)%5]
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				if path == "/gone" {
					ctx, cancel = context.WithTimeout(t.Context(), 5*time.Millisecond)
				}
				var payload io.Reader
				if method == "POST" || method == "PUT" {
					payload = strings.NewReader(strings.Repeat("x", 100))
				}
				r, err := http.NewRequestWithContext(ctx, method, front.URL+path, payload)
				if err != nil {
					t.Error(err)
					cancel()
					return
				}
				if payload != nil && g%2 == 0 {
					r.Header.Set("Expect", "100-continue")
				}
				if res, err := client.Do(r); err == nil {
					_, _ = io.Copy(io.Discard, res.Body)
					_ = res.Body.Close()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	var st httplimit.Stats
	var sh httplimit.ShedStats
	require.Eventually(t, func() bool { // some handlers of clients that have gone still run
		st, sh = m.Stats(), s.Stats()
		decided := st.Allowed + st.Refused + st.Shadowed + st.Off
		busy := arrived.Load() - decided // that were refused; in Shadow they were decided too
		return gate.Stats().InFlight == 0 && inProgress.Stats().InFlight == 0 &&
			busy <= st.Busy && decided-st.Refused == sh.Admitted+sh.Refused+sh.Gone
	}, 10*time.Second, time.Millisecond)
	require.Zero(t, st.Failed+sh.Failed+st.Keyless)
	t.Logf("%d arrived: %+v %+v", arrived.Load(), st, sh)
}

// What a refusal looks like to clients of each kind: a body that is not read does not
// break the connection's next answer, and HEAD has no body.
func TestARefusalLeavesTheConnectionInOrder(t *testing.T) {
	h := newHandler(t, ratelimit.Per(1, time.Hour), httplimit.Options{Key: everybody, Cost: func(*http.Request) int64 { return 2 }}, ok)
	server := httptest.NewServer(h)
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	read := bufio.NewReader(conn)
	for _, tc := range []struct{ head, body string }{
		{"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", ""},
		{"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", ""},
		{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", "hello"},
		{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", ""},
		{"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", ""}, // never sends
	} {
		_, err := io.WriteString(conn, tc.head+tc.body)
		require.NoError(t, err)
		method, _, _ := strings.Cut(tc.head, " ")
		res, err := http.ReadResponse(read, &http.Request{Method: method})
		require.NoError(t, err, tc.head)
		text := body(t, res)
		if strings.HasPrefix(tc.head, "OPTIONS *") {
			continue // net/http answers it
		}
		require.Equal(t, 429, res.StatusCode)
		n, err := strconv.Atoi(res.Header.Get("Content-Length"))
		require.NoError(t, err)
		if method == "HEAD" {
			require.Empty(t, text)
		} else {
			require.Len(t, text, n)
		}
	}
}

func TestInformationalAnswersPass(t *testing.T) {
	s := shedding(t, concurrency(t, shed.ConcurrencyOptions{Limit: 1}), httplimit.ShedOptions{})
	server := httptest.NewServer(newHandler(t, ratelimit.Per(10, time.Hour), httplimit.Options{Key: everybody}, s.Wrap(http.HandlerFunc(everything)).ServeHTTP))
	defer server.Close()
	var early []int
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		early = append(early, code)
		require.Equal(t, "</a.css>; rel=preload", h.Get("Link"))
		return nil
	}})
	r, err := http.NewRequestWithContext(ctx, "GET", server.URL+"/early", nil)
	require.NoError(t, err)
	res, err := server.Client().Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, []int{103}, early)
	require.Equal(t, "late", body(t, res))
	require.Len(t, res.Header.Values("RateLimit"), 1)
}

func TestTheResponseControllerReachesTheConnection(t *testing.T) {
	s := shedding(t, concurrency(t, shed.ConcurrencyOptions{Limit: 1}), httplimit.ShedOptions{})
	server := httptest.NewServer(s.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		for name, err := range map[string]error{
			"read deadline": rc.SetReadDeadline(time.Now().Add(time.Minute)), "write deadline": rc.SetWriteDeadline(time.Now().Add(time.Minute)),
			"full duplex": rc.EnableFullDuplex(), "flush": rc.Flush(),
		} {
			if err != nil {
				t.Error(name, err)
			}
		}
	})))
	defer server.Close()
	res, err := server.Client().Get(server.URL)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
}

// The documentation of Shed says where to put a MaxBytesReader.
func TestAMaxBytesReaderAroundClosesTheConnection(t *testing.T) {
	s := shedding(t, concurrency(t, shed.ConcurrencyOptions{Limit: 1}), httplimit.ShedOptions{})
	h := s.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
	}))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 10)
		h.ServeHTTP(w, r)
	}))
	defer server.Close()
	res, err := server.Client().Post(server.URL, "text/plain", strings.NewReader(strings.Repeat("x", 100)))
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusRequestEntityTooLarge, res.StatusCode)
	require.True(t, res.Close)
}

func TestAClientThatGoesAwayLeavesTheQueue(t *testing.T) {
	gone := make(chan struct{})
	waits := gateFunc(func(ctx context.Context, _ shed.Class) (shed.Permit, error) {
		<-ctx.Done()
		close(gone)
		return shed.Permit{}, ctx.Err()
	})
	s := shedding(t, waits, httplimit.ShedOptions{})
	server := httptest.NewServer(s.Wrap(http.HandlerFunc(ok)))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	<-gone
	require.Eventually(t, func() bool { return s.Stats() == httplimit.ShedStats{Gone: 1} }, 10*time.Second, time.Millisecond)
}
