//! API9: what is served is what is documented. Held elsewhere; nothing was left open here: the router is made from the document's own
//! routes, and a route without a row in the table of permissions refuses everybody.

use super::Held;

pub(super) const HELD_BY: &[Held] = &[
    ("api/tests/it/surface.rs", "the_document_has_every_route_and_every_route_answers"),
    ("api/src/access.rs", "every_row_stands_for_one_documented_route"),
    ("api/tests/it/permissions.rs", "every_documented_route_is_in_the_matrix_with_the_role_that_the_document_names"),
    ("api/tests/it/request_limits.rs", "every_keyed_route_documents_its_limits"),
    ("api/tests/it/generated/mod.rs", "every_request_is_answered_as_the_document_says"),
    ("cli/src/documents.rs", "every_address_of_the_runbooks_is_answered"),
];
