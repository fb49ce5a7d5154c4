package httpapi

import _ "embed" // openapi.json

// openAPI describes all routes, for OpenAPI 3.1.
//
//go:embed openapi.json
var openAPI []byte
