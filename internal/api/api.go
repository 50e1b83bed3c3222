// Package api holds what server and client say to each other: Attic's JSON
// types with decoders as strict as Attic's own, the types and the binary
// framing of our routes, and the routes themselves. It has no behaviour.
//
// Attic's half (docs of the protocol: the stock client speaks exactly this):
//
//	GET    /_api/v1/cache-config/{cache}   → CacheConfig
//	POST   /_api/v1/cache-config/{cache}   CreateCache →
//	PATCH  /_api/v1/cache-config/{cache}   PatchCache →
//	DELETE /_api/v1/cache-config/{cache}
//	POST   /_api/v1/get-missing-paths      MissingPathsRequest → MissingPaths
//	PUT    /_api/v1/upload-path            UploadInfo (header or preamble), NAR → UploadResult
//
// Our half, announced by the key attic_action in CacheConfig (Extension):
//
//	POST /_api/v1/cache/{cache}/chunks/missing    32-byte hashes → bitmap
//	PUT  /_api/v1/cache/{cache}/packs/{sha256}    pack file → PackResult
//	POST /_api/v1/cache/{cache}/paths             framed PathItems → PathsResult
//	POST /_api/v1/cache/{cache}/closure           ClosureRequest → ClosureResult
//	GET  /_api/v1/cache/{cache}/pins              → PinList; ?after= ?limit= ?sizes=1
//	GET, PUT, DELETE /_api/v1/cache/{cache}/pins/{name}   PinRequest → Pin
//
// A decoder takes the value of Content-Type and the whole, already bounded
// body, and returns either a typed value or an *Error that says which status
// the body deserves: 415 for a body that does not say it is JSON, 400 for what
// is not JSON, 422 for JSON of the wrong shape. The document is read front to
// back and the first fault decides, as in Attic's server.
package api
