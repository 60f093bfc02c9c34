//! Answers: JSON, or a problem with the status that fits it.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use flipside_model::{Problem, ProblemCode};

/// A problem as an answer.
pub(crate) struct Refused(pub Problem);

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<flipside_platform::PortError> for Refused {
    fn from(error: flipside_platform::PortError) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self.0.code {
            ProblemCode::Usage => StatusCode::BAD_REQUEST,
            ProblemCode::NotFound => StatusCode::NOT_FOUND,
            ProblemCode::Refused | ProblemCode::InUse => StatusCode::CONFLICT,
            ProblemCode::NotReady => StatusCode::UNPROCESSABLE_ENTITY,
            ProblemCode::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            ProblemCode::Failed
            | ProblemCode::TimedOut
            | ProblemCode::Mismatch
            | ProblemCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self.0)).into_response()
    }
}

pub(crate) type Answer<T> = Result<T, Refused>;
