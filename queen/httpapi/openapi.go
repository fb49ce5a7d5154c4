package httpapi

import _ "embed" // openapi.json

// openAPI is the OpenAPI 3.1 description of all routes.
//
//go:embed openapi.json
var openAPI []byte
