package httpcoalesce_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"

	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/coalesce/httpcoalesce"
)

// Two nodes. Whichever is asked for a page, the one that owns it answers.
func ExampleToOwner() {
	var fleet coalesce.Owners[*url.URL]
	var nodes []coalesce.Node[*url.URL]
	var urls []string
	for _, id := range []string{"a", "b"} {
		page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s worked out by %s", r.URL.Path, id)
		})
		pages, err := httpcoalesce.New(page, httpcoalesce.Options{})
		if err != nil {
			panic(err)
		}
		handler, err := httpcoalesce.ToOwner(pages, httpcoalesce.OwnerOptions{
			Self: id, Owners: &fleet,
			Key: func(r *http.Request) string { return r.URL.Path },
		})
		if err != nil {
			panic(err)
		}
		server := httptest.NewServer(handler)
		defer server.Close()
		u, _ := url.Parse(server.URL)
		nodes = append(nodes, coalesce.Node[*url.URL]{ID: id, Value: u})
		urls = append(urls, server.URL)
	}
	if err := fleet.Update(nodes); err != nil {
		panic(err)
	}

	for _, page := range []string{"/cats", "/dogs", "/gophers"} {
		for _, u := range urls {
			res, err := http.Get(u + page)
			if err != nil {
				panic(err)
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			fmt.Println(string(body))
		}
	}
	// Output:
	// /cats worked out by b
	// /cats worked out by b
	// /dogs worked out by b
	// /dogs worked out by b
	// /gophers worked out by a
	// /gophers worked out by a
}
