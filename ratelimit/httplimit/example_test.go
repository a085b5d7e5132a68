package httplimit_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/httplimit"
)

func Example() {
	users, err := ratelimit.NewKeyed[string](ratelimit.Per(2, time.Minute), ratelimit.KeyedOptions{})
	if err != nil {
		panic(err)
	}
	limit, err := httplimit.New(users, httplimit.Options{
		Key: func(r *http.Request) (string, error) {
			user, _, ok := r.BasicAuth() // checked by an earlier middleware
			if !ok {
				return "", errors.New("not signed in")
			}
			return user, nil
		},
	})
	if err != nil {
		panic(err)
	}
	handler := limit(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }))

	for range 3 {
		r := httptest.NewRequest("GET", "/", nil)
		r.SetBasicAuth("ann", "secret")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		h := w.Header()
		fmt.Printf("%d  %s  %s  %q\n", w.Code, h.Get("RateLimit-Policy"), h.Get("RateLimit"), h.Get("Retry-After"))
	}
	// Output:
	// 200  "default";q=2;w=60  "default";r=1;t=30  ""
	// 200  "default";q=2;w=60  "default";r=0;t=30  ""
	// 429  "default";q=2;w=60  "default";r=0;t=30  "30"
}
