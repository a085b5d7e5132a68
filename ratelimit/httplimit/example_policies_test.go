package httplimit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/httplimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// must ends an example that cannot go on.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A tenant's limit holds for all its users together, and a user's for each. What one of
// the two refuses is not charged to the other.
func Example_tenantAndUser() {
	perUser := must(ratelimit.NewKeyed[string](ratelimit.Per(2, time.Minute), ratelimit.KeyedOptions{}))
	perTenant := must(ratelimit.NewKeyed[string](ratelimit.Per(3, time.Minute), ratelimit.KeyedOptions{}))
	tenant, user := httplimit.Header("X-Tenant"), httplimit.Header("X-User") // set by the authentication
	limit := must(httplimit.New(perUser, httplimit.Options{
		Name: "user",
		Key:  httplimit.Join(tenant, user), // the ann of one tenant is not that of another
		Also: []httplimit.Policy{{Name: "tenant", Limiter: perTenant, Key: tenant}},
	}))
	handler := limit(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))

	for _, name := range []string{"ann", "ann", "ann", "bob", "bob"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-Tenant", "acme")
		r.Header.Set("X-User", name)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Println(name, w.Code, w.Header().Get("RateLimit"))
	}
	// Output:
	// ann 200 "user";r=1;t=30, "tenant";r=2;t=20
	// ann 200 "user";r=0;t=30, "tenant";r=1;t=20
	// ann 429 "user";r=0;t=30, "tenant";r=1;t=20
	// bob 200 "user";r=1;t=30, "tenant";r=0;t=20
	// bob 429 "user";r=1;t=30, "tenant";r=0;t=20
}

// Each route has a limit of its own for each address, and writes have one more.
func Example_routes() {
	ip := must(httplimit.ClientIP(httplimit.ClientIPOptions{
		Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/28")}, // the load balancers
	}))
	perRoute := must(ratelimit.NewKeyed[string](ratelimit.Per(2, time.Second), ratelimit.KeyedOptions{}))
	writes := must(ratelimit.NewKeyed[string](ratelimit.Per(1, time.Minute), ratelimit.KeyedOptions{}))
	limit := must(httplimit.New(perRoute, httplimit.Options{
		Name: "route",
		Key:  httplimit.Join(httplimit.Route, ip),
		Also: []httplimit.Policy{{
			Name: "writes", Limiter: writes, Key: ip,
			When: func(r *http.Request) bool { return r.Method != http.MethodGet },
		}},
	}))
	mux := http.NewServeMux()
	for _, pattern := range []string{"GET /items/{id}", "POST /items", "POST /orders"} {
		mux.Handle(pattern, limit(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	}

	for _, line := range []string{"GET /items/7", "POST /items", "POST /orders"} {
		var method, path string
		fmt.Sscan(line, &method, &path)
		r := httptest.NewRequest(method, path, nil)
		r.RemoteAddr = "10.0.0.3:4711"
		r.Header.Set("X-Forwarded-For", "1.1.1.1, 198.51.100.7") // the left part is forged
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(w.Code, line, w.Header().Get("RateLimit"))
	}
	// Output:
	// 200 GET /items/7 "route";r=1;t=1
	// 200 POST /items "route";r=1;t=1, "writes";r=0;t=60
	// 429 POST /orders "route";r=2, "writes";r=0;t=60
}

// The cost of a query is estimated from what it asks for, and corrected to the rows
// that it has read.
func ExampleSetCost() {
	perUser := must(ratelimit.NewKeyed[string](ratelimit.Per(1000, time.Hour), ratelimit.KeyedOptions{}))
	limit := must(httplimit.New(perUser, httplimit.Options{
		Key:    httplimit.Header("X-User"),
		Cost:   func(*http.Request) int64 { return 100 },
		Settle: true,
	}))
	handler := limit(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		rows := int64(3) // that the query has read
		httplimit.SetCost(r.Context(), rows)
	}))

	for range 2 {
		r := httptest.NewRequest("GET", "/?first=100", nil)
		r.Header.Set("X-User", "ann")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Println(w.Header().Get("RateLimit"))
	}
	// Output:
	// "default";r=900;t=4
	// "default";r=897;t=4
}

// A server with two places keeps them for those who matter when it is full.
func ExampleNewShed() {
	gate := must(shed.NewConcurrency(shed.ConcurrencyOptions{Limit: 2, Reserve: 0.5}))
	s := must(httplimit.NewShed(gate, httplimit.ShedOptions{
		Class: func(r *http.Request) shed.Class {
			if r.URL.Path == "/pay" {
				return shed.Critical
			}
			return httplimit.ByMethod(r)
		},
	}))
	var handler http.Handler
	handler = s.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/slow" {
			return
		}
		for _, path := range []string{"/search", "/pay"} { // while /slow is in progress
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			fmt.Println(path, w.Code)
		}
	}))
	handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/slow", nil))
	fmt.Printf("%+v\n", s.Stats())
	// Output:
	// /search 503
	// /pay 200
	// {Admitted:2 Refused:1 FellBack:0 Gone:0 Shadowed:0 Off:0 Failed:0}
}

func ExampleCap() {
	limit := must(httplimit.Cap(httplimit.CapOptions{Max: 100}))
	budget := must(httplimit.Budget(2 * time.Second))
	handler := budget(limit(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// rows, err := db.QueryContext(r.Context(), …) ends with the budget
		fmt.Fprintf(w, "%s items", r.URL.Query().Get("first"))
	})))
	for _, query := range []string{"first=100", "first=1000000"} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", "/items?"+query, nil))
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 200 100 items
	// 400 {"title":"Bad Request","status":400,"detail":"first is 1000000, expected at most 100."}
}

// The server says that it is busy for a minute, so a request that has five seconds is not
// sent.
func ExampleTransport() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "60")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer server.Close()
	client := &http.Client{Transport: &httplimit.Transport{
		Key: func(*http.Request) string { return "items" }, // the host would do
	}}
	for range 2 {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		r := must(http.NewRequestWithContext(ctx, "GET", server.URL, nil))
		res, err := client.Do(r)
		if pause, ok := errors.AsType[*httplimit.PauseError](err); ok {
			fmt.Println("not sent:", pause.Key, "is to be left alone")
			continue
		}
		fmt.Println(res.Status)
		res.Body.Close()
	}
	// Output:
	// 503 Service Unavailable
	// not sent: items is to be left alone
}
