package httpbalance_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/balance/httpbalance"
)

// canned returns the same response again and again, at no cost of its own.
func canned(body io.ReadCloser) roundTripper {
	resp := respond(200, body)
	return func(*http.Request) (*http.Response, error) {
		resp.Body = body
		return resp, nil
	}
}

// ended is a body that is at its end.
type ended struct{}

func (ended) Read([]byte) (int, error) { return 0, io.EOF }
func (ended) Close() error             { return nil }

func leastRequest(t require.TestingT, urls ...string) *balance.Balancer[*url.URL] {
	b, err := balance.New[*url.URL](balance.LeastRequest(balance.LeastRequestOptions{}), balance.Options{})
	require.NoError(t, err)
	set, err := httpbalance.Static(urls...)
	require.NoError(t, err)
	require.NoError(t, b.Update(set))
	return b
}

func TestARequestCostsOneAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	ctx := t.Context()
	for _, tc := range []struct {
		name string
		ctx  context.Context
		send io.Reader
		body io.ReadCloser
		want float64
	}{
		{"no body", ctx, nil, http.NoBody, 1},
		{"body", context.Background(), nil, ended{}, 1},
		{"request and response body", context.Background(), strings.NewReader("x"), ended{}, 1},
		{"body and a context that can end", ctx, nil, ended{}, 4},
	} {
		tr := &httpbalance.Transport{Balancer: leastRequest(t, "http://a", "http://b"), Base: canned(tc.body)}
		r := newRequest(t, tc.ctx, "GET", "http://service/x", tc.send)
		buf := make([]byte, 1)
		got := testing.AllocsPerRun(1000, func() {
			resp, err := tr.RoundTrip(r)
			if err != nil {
				panic(err)
			}
			_, _ = resp.Body.Read(buf)
			_ = resp.Body.Close()
		})
		require.LessOrEqual(t, got, tc.want, tc.name)
	}
}

// BenchmarkRoundTrip compares a request through a Transport with one through its base
// alone. With net=none the base costs nothing, so that what is left is ours; with
// net=loopback there is a server.
func BenchmarkRoundTrip(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	defer s.Close()
	for _, network := range []string{"none", "loopback"} {
		for _, ctx := range []string{"background", "cancelable"} {
			for _, transport := range []string{"floor", "httpbalance"} {
				b.Run("transport="+transport+"/net="+network+"/context="+ctx, func(b *testing.B) {
					base := http.RoundTripper(canned(ended{}))
					if network == "loopback" {
						t := &http.Transport{MaxIdleConnsPerHost: 100}
						defer t.CloseIdleConnections()
						base = t
					}
					tr := base
					if transport == "httpbalance" {
						tr = &httpbalance.Transport{Balancer: leastRequest(b, s.URL), Base: base}
					}
					parent := context.Background()
					if ctx == "cancelable" {
						c, cancel := context.WithCancel(parent)
						defer cancel()
						parent = c
					}
					r := newRequest(b, parent, "GET", s.URL, nil)
					buf := make([]byte, 512)
					b.ReportAllocs()
					for b.Loop() {
						resp, err := tr.RoundTrip(r)
						if err != nil {
							b.Fatal(err)
						}
						for err == nil {
							_, err = resp.Body.Read(buf)
						}
						_ = resp.Body.Close()
					}
				})
			}
		}
	}
}
