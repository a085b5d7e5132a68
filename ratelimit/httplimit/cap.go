package httplimit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// CapOptions configure [Cap]. Max is required.
type CapOptions struct {
	// Params are the query parameters that say how many items to return. Empty means
	// "limit", "first" and "last".
	Params []string

	// Max is the most that may be asked for.
	Max int64

	// Clamp lowers what is above Max to Max, silently, where it would be refused
	// otherwise. Refusing is the default: a client that asks for 1000 and gets 100
	// believes that there are no more.
	Clamp bool

	// Default is put into the first of Params for a request that has none of them. 0
	// means that such a request is left as it is: the handler has a default of its own.
	Default int64
}

// Cap returns a middleware that keeps pages small: one request for a million items
// costs as much as a million requests and counts as one. It looks at the query of the
// URL, and calls the next handler if all parameters have values from 0 to Max. Otherwise
// it answers 400 Bad Request, with a problem that names the parameter, the value and the
// maximum. What is no number is refused in any case, and so is a query that cannot be
// parsed, which two parsers might read in two ways. It does not read bodies: take the
// parameters from URL.Query and not from FormValue, which prefers a form in the body.
//
// Returns an error that names the option when Max or Default is out of range. A request
// with a query costs its parsing.
//
// The middleware is safe for concurrent use by multiple goroutines.
func Cap(o CapOptions) (func(http.Handler) http.Handler, error) {
	if o.Max < 1 {
		return nil, fmt.Errorf("httplimit: CapOptions.Max is %d, expected 1 or more", o.Max)
	}
	if o.Default < 0 || o.Default > o.Max {
		return nil, fmt.Errorf("httplimit: CapOptions.Default is %d, expected 0 to Max, %d", o.Default, o.Max)
	}
	if len(o.Params) == 0 {
		o.Params = []string{"limit", "first", "last"}
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery == "" && o.Default == 0 {
				next.ServeHTTP(w, r)
				return
			}
			query, changed, detail := o.apply(r.URL.RawQuery)
			if detail != "" {
				badPage(detail).write(w)
				return
			}
			if changed {
				r = withQuery(r, query)
			}
			next.ServeHTTP(w, r)
		})
	}, nil
}

// apply returns the query as it should be. The detail says why there is none.
func (o *CapOptions) apply(raw string) (query url.Values, changed bool, detail string) {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return nil, false, "The query cannot be parsed."
	}
	found := false
	for _, param := range o.Params {
		for i, text := range query[param] {
			found = true
			n, ok := pageSize(text)
			switch {
			case !ok:
				return nil, false, fmt.Sprintf("%s is %.20q, expected a number from 0 to %d.", param, text, o.Max)
			case n <= o.Max:
			case o.Clamp:
				query[param][i] = strconv.FormatInt(o.Max, 10)
				changed = true
			default:
				return nil, false, fmt.Sprintf("%s is %.20s, expected at most %d.", param, text, o.Max)
			}
		}
	}
	if !found && o.Default > 0 {
		query.Set(o.Params[0], strconv.FormatInt(o.Default, 10))
		changed = true
	}
	return query, changed, ""
}

// pageSize reads digits. A number that is too large for an int64 is as large as can be.
func pageSize(text string) (int64, bool) {
	if text == "" || !all(text, isDigit) {
		return 0, false
	}
	n, _ := strconv.ParseInt(text, 10, 64) // out of range gives the largest
	return n, true
}

// withQuery returns a copy of r with another query.
func withQuery(r *http.Request, query url.Values) *http.Request {
	u := *r.URL
	u.RawQuery = query.Encode()
	copied := r.WithContext(r.Context())
	copied.URL = &u
	copied.RequestURI = u.RequestURI()
	copied.Form = nil // what was parsed before had the old query
	return copied
}

func badPage(detail string) *problem {
	return newProblem(details{
		Title: http.StatusText(http.StatusBadRequest), Status: http.StatusBadRequest, Detail: detail,
	})
}

// ErrBudget is the cause of a request's context ([context.Cause]) when the time of
// [Budget] has run out.
var ErrBudget = errors.New("httplimit: the time for the request has run out")

// Budget returns a middleware that gives each request a deadline: what
// statement_timeout is to a database. Every call that the handler makes with the
// request's context ends with it: database/sql cancels the statement, net/http the
// request. The answer is the handler's; [http.TimeoutHandler], which gives one of its
// own, holds the whole answer in memory for that. A deadline that is earlier already
// stays. Returns an error if d is not positive.
//
// Put it around a [Shed], so that waiting for the gate counts, and the end of the budget
// is told to it. The middleware is safe for concurrent use by multiple goroutines.
func Budget(d time.Duration) (func(http.Handler) http.Handler, error) {
	if d <= 0 {
		return nil, fmt.Errorf("httplimit: the budget is %v, expected more than 0", d)
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeoutCause(r.Context(), d, ErrBudget)
			defer cancel()
			next.ServeHTTP(w, r.WithContext(ctx))
		})
	}, nil
}
