package httpbalance_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/balance/httpbalance"
)

// fleet is three real servers, each of which works on a few requests at a time. The
// first is ten times slower than the others.
type fleet struct {
	urls    []string
	servers []*httptest.Server
}

func newFleet(fast time.Duration, workers int) *fleet {
	var f fleet
	for i := range 3 {
		work := fast
		if i == 0 {
			work = 10 * fast
		}
		busy := make(chan struct{}, workers)
		s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			busy <- struct{}{}
			<-time.After(work) // the work
			<-busy
		}))
		f.servers, f.urls = append(f.servers, s), append(f.urls, s.URL)
	}
	return &f
}

func (f *fleet) close() {
	for _, s := range f.servers {
		s.Close()
	}
}

// client returns a client of the fleet with connections of its own, and its balancer.
func (f *fleet) client(t require.TestingT, s balance.Strategy, seed uint64) (*http.Client, *balance.Balancer[*url.URL]) {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 1))
	b, err := balance.New[*url.URL](s, balance.Options{Rand: func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return rng.Uint64()
	}})
	require.NoError(t, err)
	set, err := httpbalance.Static(f.urls...)
	require.NoError(t, err)
	require.NoError(t, b.Update(set))
	base := &http.Transport{MaxIdleConnsPerHost: 256}
	return &http.Client{Transport: &httpbalance.Transport{Balancer: b, Base: base}}, b
}

func get(c *http.Client) error {
	resp, err := c.Get("http://service/")
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return err
}

var tailStrategies = []struct {
	name     string
	strategy balance.Strategy
}{
	{"roundrobin", balance.RoundRobin()},
	{"p2c", balance.LeastRequest(balance.LeastRequestOptions{})},
	{"leastlatency", balance.LeastLatency(balance.LatencyOptions{})},
}

// share returns the part of the requests that the slow server got.
func share(b *balance.Balancer[*url.URL]) float64 {
	for _, s := range b.Stats() {
		return s.Share
	}
	return 0
}

// Over real connections: what a slow server gets under round robin is a third, and less
// under the others.
func TestTheSlowServerGetsLessThanItsTurn(t *testing.T) {
	t.Parallel()
	f := newFleet(2*time.Millisecond, 4)
	defer f.close()
	for _, s := range tailStrategies {
		client, b := f.client(t, s.strategy, 1)
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				for range 50 {
					if err := get(client); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		client.CloseIdleConnections()
		require.EqualValues(t, 300, sum(b).Picks)
		if s.name == "roundrobin" {
			require.InDelta(t, 1.0/3, share(b), 0.001)
		} else {
			require.Less(t, share(b), 0.3, s.name)
		}
	}
}

// BenchmarkHTTPTail sends requests at random times, as the seed has them, to three real
// servers, one of which is ten times slower, and reports the latencies that the client
// sees. Under round robin the slow one is busy for three quarters of the time.
func BenchmarkHTTPTail(b *testing.B) {
	const (
		work     = 2 * time.Millisecond
		workers  = 4
		rate     = 450 // a second: a third of it is 150, of the slow server's 200
		requests = 500
		warmup   = 100
	)
	for _, s := range tailStrategies {
		for seed := range uint64(3) {
			b.Run(fmt.Sprintf("strategy=%s/seed=%d", s.name, seed+1), func(b *testing.B) {
				b.ReportAllocs()
				var all []time.Duration
				slow, runs := 0.0, 0
				for b.Loop() {
					f := newFleet(work, workers)
					client, balancer := f.client(b, s.strategy, seed)
					latencies := make([]time.Duration, requests)
					rng := rand.New(rand.NewPCG(seed, 2))
					var wg sync.WaitGroup
					next := time.NewTimer(0)
					at := time.Now()
					for i := range latencies {
						at = at.Add(time.Duration(rng.ExpFloat64() / rate * float64(time.Second)))
						<-next.C
						next.Reset(time.Until(at))
						wg.Go(func() {
							start := time.Now()
							if err := get(client); err != nil {
								b.Error(err)
							}
							latencies[i] = time.Since(start)
						})
					}
					wg.Wait()
					client.CloseIdleConnections()
					f.close()
					all = append(all, latencies[warmup:]...)
					slow, runs = slow+share(balancer), runs+1
				}
				slices.Sort(all)
				b.ReportMetric(float64(all[len(all)/2]), "p50-ns")
				b.ReportMetric(float64(all[len(all)*99/100]), "p99-ns")
				b.ReportMetric(100*slow/float64(runs), "slow%")
				b.ReportMetric(0, "ns/op") // the time of the whole run says nothing
			})
		}
	}
}
