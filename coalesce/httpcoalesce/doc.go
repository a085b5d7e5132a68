// Package httpcoalesce lets concurrent equal requests share one execution of an
// http.Handler. A [Handler] runs the wrapped handler once, streams its response to
// every client that asked for the same meanwhile, and keeps apart what must not be
// shared.
//
// # The problem
//
// A page is in the news, and ten thousand people hover over the same link. Each gets a
// preview, each preview is a request, each request is a query, and all of them ask the
// database for the same row. Caches in front do not help in the moment that matters:
// when the entry has just expired they all miss together.
//
// The requests are not only many, they are equal: while one is worked on, every further
// one asks for what is already on its way.
//
// # The idea
//
//	summaries, err := httpcoalesce.New(http.HandlerFunc(summary), httpcoalesce.Options{})
//	...
//	mux.Handle("GET /page/summary/{title}", summaries)
//
// The first request runs the handler; those that come while it runs get the same
// response, byte by byte as it is written. Proxies know this as proxy_cache_lock
// (nginx), request collapsing (Fastly) or the waiting list (Varnish); here it needs
// neither a proxy nor a cache.
//
// The hard part is not to share too much. A response may be for one person only, and
// that is known when its header has been written, with others waiting for it already.
// A Handler decides at that moment, lets all go that cannot have the response, at once
// and not one behind the other, and remembers such a key for a while (hit-for-pass).
//
// # Which requests are collapsed
//
// GET and HEAD, without a body and without Range, If-Range, Upgrade and Expect; not with
// Cache-Control: no-store, no-cache or only-if-cached, nor with Pragma: no-cache. All
// others pass: they run the wrapped handler with their own ResponseWriter.
//
// Equal are requests with the same method, scheme, host, path, query, RequestURI,
// principal, [Options.KeyHeaders], preconditions (If-None-Match and its like: equal
// conditions have equal answers, also a 304) and Cache-Control. A request with max-age
// or min-fresh joins no response whose header has been written.
//
// # Which responses are shared
//
// Those that RFC 9111 lets a shared cache store and use at once for these requests
// (section 4: "collapse requests"), and fewer rather than more:
//
//   - never with Set-Cookie, Cache-Control: no-store, private or no-cache (also with a
//     list of fields), Vary: *, status 206 or 101, or a Cache-Control that is malformed;
//   - not if it is stale at once, by max-age=0 or Expires in the past, unless
//     stale-while-revalidate (RFC 5861) allows it;
//   - with Vary, only among requests that are equal in the fields that it names; the
//     others go on to their own variant, and the names are remembered;
//   - a status that may be stored without being asked to (200, 203, 204, 300, 301, 308,
//     404, 405, 410, 414, 501), 304, and any other if Cache-Control or Expires allow it;
//   - 500, 502, 503 and 504, unless they forbid it: to run them again for everybody who
//     waits would multiply the load of a server that has too much of it already;
//   - not if its Content-Length is more than [Options.MaxBuffer].
//
// For a page that browsers and caches should ask for each time, and whose concurrent
// requests may still share it, no-cache and max-age=0 are too strict; say
//
//	Cache-Control: max-age=0, stale-while-revalidate=1
//
// # Security: who asks
//
// The wrapped handler sees the first request only: its header, its address and the
// values of its context. What it makes of that, others get. So requests with
// Authorization, Cookie or a client certificate are not collapsed unless
// [Options.Principal] says who asks. If anything else does, such as a header that a
// gateway adds or a value that middleware has put into the context, use Principal too.
// Put middleware that decides about permission, logs or counts outside of the Handler:
// there it sees every request.
//
// The same holds for fields that say how the site was reached and that the handler
// believes, such as X-Forwarded-Host: put them into [Options.KeyHeaders], or one client
// can choose the links that others get.
//
// A handler that forgets its Vary is a leak in waiting, with a cache as with a Handler.
// The fields by which content is usually negotiated are in the key for that reason.
//
// # Streaming
//
// Each client reads at its own pace from a window of [Options.MaxBuffer] bytes. The
// handler is held back only when the window is full and no client has read all of it;
// if one has, clients that are further behind are cut off. A client that comes late
// gets the whole body as long as the window has its beginning, and otherwise starts
// anew. Flushes and trailers arrive as the handler made them. Informational responses
// (1xx) are dropped, since nobody knows yet who may have them. The header that the
// handler sees is empty at first; its fields replace those that middleware outside has
// set for a client, but Vary and Set-Cookie are added to them.
//
// If the handler panics, calls runtime.Goexit or writes less than its Content-Length,
// the connection of every client breaks; no client ever takes a part for the whole.
//
// # More than one node
//
// Each node collapses what reaches it, so that N nodes do the work of a hot page N
// times. [ToOwner] sends the requests for a page to the one node that owns it, as
// Discord's API does with the requests for a channel.
//
// # When not to use it
//
//   - It is not a cache: a response is forgotten when the handler returns, and between
//     two crowds nothing is saved.
//   - When equal requests are rare, or the handler takes microseconds: each flight costs
//     a goroutine and a copy of the request and the response.
//   - For large downloads: clients differ in speed, and MaxBuffer is what they may
//     differ.
//   - For streams without an end that clients may join late: when the window is full,
//     each new client starts another execution.
//   - For handlers that count or log who asked.
//
// # Watching it
//
// [Handler.Stats] counts. Requests minus Executions is what is saved. Released and
// Diverted are requests that waited in vain.
//
// # Sources
//
//   - RFC 9111 (HTTP Caching), RFC 9110 (HTTP Semantics), RFC 5861 (stale content).
//   - The http-tests/cache-tests suite: which cases are worth testing.
//   - Fastly and Varnish: hit-for-pass.
package httpcoalesce
