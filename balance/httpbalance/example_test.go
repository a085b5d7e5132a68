package httpbalance_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/balance/httpbalance"
)

// Three servers of one service behind one client.
func Example() {
	var urls []string
	for range 3 {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s on %s", r.URL.Path, r.Host)
		}))
		defer s.Close()
		urls = append(urls, s.URL)
	}
	backends, err := httpbalance.Static(urls...)
	if err != nil {
		fmt.Println(err)
		return
	}
	balancer, err := balance.New[*url.URL](balance.RoundRobin(), balance.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := balancer.Update(backends); err != nil {
		fmt.Println(err)
		return
	}
	client := &http.Client{Transport: &httpbalance.Transport{Balancer: balancer}}
	for range 6 {
		resp, err := client.Get("http://users/v1/42")
		if err != nil {
			fmt.Println(err)
			return
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Println(string(body))
	}
	for _, s := range balancer.Stats() {
		fmt.Println(s.Picks, "requests,", s.InFlight, "under way")
	}
	// Output:
	// /v1/42 on users
	// /v1/42 on users
	// /v1/42 on users
	// /v1/42 on users
	// /v1/42 on users
	// /v1/42 on users
	// 2 requests, 0 under way
	// 2 requests, 0 under way
	// 2 requests, 0 under way
}

// One of two servers is being deployed and answers 503. The client does not notice: its
// requests are sent to the other one, body and all.
func ExampleTransport_retries() {
	deploying := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "10")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer deploying.Close()
	ready := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))
	defer ready.Close()

	backends, _ := httpbalance.Static(deploying.URL, ready.URL)
	balancer, _ := balance.New[*url.URL](balance.RoundRobin(), balance.Options{})
	_ = balancer.Update(backends)
	transport := &httpbalance.Transport{Balancer: balancer}
	client := &http.Client{Transport: transport}
	for i := range 4 {
		r, _ := http.NewRequest("PUT", "http://users/v1/42", strings.NewReader(fmt.Sprint("write ", i)))
		resp, err := client.Do(r)
		if err != nil {
			fmt.Println(err)
			return
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Println(resp.StatusCode, string(body))
	}
	// It asked to be left alone, and is.
	fmt.Println("tried again:", transport.Stats().Retries)
	// Output:
	// 200 write 0
	// 200 write 1
	// 200 write 2
	// 200 write 3
	// tried again: 1
}

func ExampleStatic() {
	backends, err := httpbalance.Static("http://10.0.0.1:8080", "https://b.example.com/v1")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, b := range backends {
		fmt.Println(b.ID, b.Value)
	}
	_, err = httpbalance.Static("http://10.0.0.1:8080", "10.0.0.2:8080")
	fmt.Println(err)
	// Output:
	// 10.0.0.1:8080 http://10.0.0.1:8080
	// b.example.com:443/v1 https://b.example.com:443/v1
	// httpbalance: URL number 1, "10.0.0.2:8080": first path segment in URL cannot contain colon
}

// names stands in for the name service; leave Lookup nil for the real one.
type names map[string][]netip.Addr

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return n[host], nil
}

// Every address of a name is a backend.
func ExampleNewDNS() {
	dns, err := httpbalance.NewDNS("http://users.internal:8080", httpbalance.DNSOptions{
		Lookup: names{"users.internal": {netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1")}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	backends, err := dns.Resolve(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, b := range backends {
		fmt.Println(b.Value)
	}
	// Output:
	// http://10.0.0.1:8080
	// http://10.0.0.2:8080
}

// Follow runs beside the program until its context ends. Here the resolver also says
// which zone each backend is in.
func ExampleFollow() {
	dns, _ := httpbalance.NewDNS("http://users.internal:8080", httpbalance.DNSOptions{
		Lookup: names{"users.internal": {netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1")}},
	})
	zoned := httpbalance.ResolverFunc(func(ctx context.Context) ([]balance.Backend[*url.URL], error) {
		backends, err := dns.Resolve(ctx)
		for i := range backends {
			backends[i].Zone = "a"
			if strings.HasPrefix(backends[i].ID, "10.2.") {
				backends[i].Zone = "b"
			}
		}
		return backends, err
	})
	balancer, _ := balance.New[*url.URL](balance.LeastRequest(balance.LeastRequestOptions{}), balance.Options{
		Zone: balance.Zone{Local: "a"},
	})

	// The first answer before the first request, if it is there soon.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	backends, err := zoned.Resolve(ctx)
	cancel()
	if err == nil {
		err = balancer.Update(backends)
	}
	if err != nil {
		fmt.Println("starting without backends:", err)
	}

	ctx, cancel = context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- httpbalance.Follow(ctx, balancer, zoned, httpbalance.FollowOptions{}) }()

	var zones []string
	for b := range balancer.Stats() {
		zones = append(zones, b.ID+" in "+b.Zone)
	}
	slices.Sort(zones)
	fmt.Println(strings.Join(zones, ", "))

	cancel()
	fmt.Println(<-ended)
	// Output:
	// 10.1.0.1:8080 in a, 10.2.0.1:8080 in b
	// <nil>
}
