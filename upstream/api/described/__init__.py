"""What the OpenAPI document says beyond the routes' signatures: answers with schemas and examples, tags, bodies."""
