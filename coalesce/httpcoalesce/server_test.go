package httpcoalesce_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce/httpcoalesce"
)

// gated is a handler that waits at its gate. entered tells when it is called, and
// queued lets a test wait until so many requests are in flights.
type gated struct {
	*httpcoalesce.Handler
	entered, gate chan struct{}
}

func newGated(t *testing.T, o httpcoalesce.Options, f http.HandlerFunc) *gated {
	g := &gated{entered: make(chan struct{}, 100), gate: make(chan struct{})}
	h, err := httpcoalesce.New(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.entered <- struct{}{}
		<-g.gate
		f(w, r)
	}), o)
	require.NoError(t, err)
	g.Handler = h
	return g
}

// queued waits until n requests have joined.
func (g *gated) queued(t *testing.T, n uint64) {
	require.Eventually(t, func() bool { return g.Stats().Joined >= n }, waitLong, waitShort)
}

type result struct {
	status  int
	trailer http.Header
	body    string
	err     error
}

func do(ctx context.Context, client *http.Client, url string) (r result) {
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return result{err: err}
	}
	resp, err := client.Do(req)
	if err != nil {
		return result{err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return result{resp.StatusCode, resp.Trailer, string(body), err}
}

func doAll(client *http.Client, url string, n int) (wait func() []result) {
	results := make([]result, n)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() { results[i] = do(context.Background(), client, url) })
	}
	return func() []result { wg.Wait(); return results }
}

func TestOverTheWireOneExecutionIsStreamedToAll(t *testing.T) {
	const n = 20
	body := strings.Repeat("0123456789", 50_000)
	h := newGated(t, httpcoalesce.Options{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "Sum")
		for i := 0; i < len(body); i += 1000 {
			_, _ = io.WriteString(w, body[i:i+1000])
			if i%10_000 == 0 {
				w.(http.Flusher).Flush()
			}
		}
		w.Header().Set("Sum", "7")
	})
	joined := uint64(0)
	servers(t, h, func(t *testing.T, s *httptest.Server) {
		wait := doAll(s.Client(), s.URL, n)
		joined += n - 1
		h.queued(t, joined)
		h.gate <- struct{}{}
		for _, r := range wait() {
			require.NoError(t, r.err)
			require.Equal(t, 200, r.status)
			require.Equal(t, body, r.body)
			require.Equal(t, http.Header{"Sum": {"7"}}, r.trailer)
		}
	})
	require.EqualValues(t, 2, h.Stats().Executions)
}

func TestOverTheWireAnAbortIsNeverACleanEnd(t *testing.T) {
	const n = 5
	for name, f := range map[string]http.HandlerFunc{
		"panic before the header": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"panic in the body": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "part")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
		"short": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "part")
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newGated(t, httpcoalesce.Options{}, f)
			joined := uint64(0)
			servers(t, h, func(t *testing.T, s *httptest.Server) {
				wait := doAll(s.Client(), s.URL, n)
				joined += n - 1
				h.queued(t, joined)
				go func() { // a request whose connection broke before the header may be repeated
					for {
						select {
						case h.gate <- struct{}{}:
						case <-t.Context().Done():
							return
						}
					}
				}()
				for _, r := range wait() {
					require.Error(t, r.err, "%+v", r)
				}
			})
		})
	}
}

// A panic is in the server's log with the handler's stack.
func TestOverTheWireAPanicIsLogged(t *testing.T) {
	var mu sync.Mutex
	var out bytes.Buffer
	h := newGated(t, httpcoalesce.Options{}, explode)
	close(h.gate)
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return out.Write(p)
	}), "", 0)
	s.Start()
	require.Error(t, do(t.Context(), s.Client(), s.URL).err)
	s.Close()
	mu.Lock()
	defer mu.Unlock()
	require.Contains(t, out.String(), "boom")
	require.Contains(t, out.String(), "httpcoalesce_test.explode")
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// The first client goes away in the middle of the body; the others get all of it, and
// the handler does not notice.
func TestOverTheWireTheFirstClientDisconnects(t *testing.T) {
	more := make(chan struct{})
	h := newGated(t, httpcoalesce.Options{}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "one ")
		w.(http.Flusher).Flush()
		<-more
		_, _ = fmt.Fprint(w, "two ", r.Context().Err())
	})
	joined := uint64(0)
	servers(t, h, func(t *testing.T, s *httptest.Server) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, "GET", s.URL, nil)
		require.NoError(t, err)
		responses := make(chan *http.Response, 1)
		go func() {
			resp, err := s.Client().Do(r)
			if err == nil {
				responses <- resp
			}
			close(responses)
		}()
		<-h.entered
		wait := doAll(s.Client(), s.URL, 5)
		joined += 5
		h.queued(t, joined)
		h.gate <- struct{}{}
		first := <-responses
		require.NotNil(t, first)
		part := make([]byte, 4)
		_, err = io.ReadFull(first.Body, part)
		require.NoError(t, err)
		cancel()
		_, err = io.ReadAll(first.Body)
		require.ErrorIs(t, err, context.Canceled)
		require.NoError(t, first.Body.Close())
		more <- struct{}{}
		for _, r := range wait() {
			require.NoError(t, r.err)
			require.Equal(t, "one two <nil>", r.body)
		}
	})
	require.EqualValues(t, 2, h.Stats().Executions)
	require.Zero(t, h.Stats().Abandoned)
}

// A disconnect of the last client cancels the handler.
func TestOverTheWireTheLastClientDisconnects(t *testing.T) {
	ended := make(chan struct{})
	h := newGated(t, httpcoalesce.Options{}, func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		ended <- struct{}{}
	})
	servers(t, h, func(t *testing.T, s *httptest.Server) {
		ctx, cancel := context.WithCancel(t.Context())
		go do(ctx, s.Client(), s.URL)
		<-h.entered
		h.gate <- struct{}{}
		cancel()
		<-ended
	})
}

const (
	waitLong  = 30 * time.Second
	waitShort = time.Millisecond
)
