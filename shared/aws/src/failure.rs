//! From the SDK's errors to the ports' error.
//!
//! Must never lose the chain: the log needs it. Must never put the SDK's text into a message: that is for the log alone.

use std::error::Error;

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use ciab_core::ports::PortError;

/// What services say when they want to be asked again later. AWS's lists of throttling and transient codes.
const ASK_AGAIN: [&str; 27] = [
    "AccountLimitExceededException",
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "InternalServiceError",
    "InternalServiceException",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "ThrottlingError",
    "TooManyRequestsException",
    "TransactionConflictException",
    "TransactionInProgressException",
    "Unavailable",
];

/// A service and one of its operations, in its own names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) service: &'static str,
    pub(crate) operation: &'static str,
}

impl Call {
    pub(crate) fn failed<E>(self, error: SdkError<E, HttpResponse>) -> PortError
    where
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let Self { service, operation } = self;
        let refusal = match &error {
            SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => None,
            SdkError::ServiceError(answer) if answer.raw().status().is_server_error() => None,
            SdkError::ServiceError(_) => Some(error.code().unwrap_or("NoErrorCode").to_owned()),
            _ => Some("RequestNotBuilt".to_owned()),
        };
        match refusal {
            Some(code) if !ASK_AGAIN.contains(&code.as_str()) => {
                PortError::Refused { service, operation, code, source: Box::new(error) }
            }
            Some(_) | None => PortError::Unavailable { service, operation, source: Box::new(error) },
        }
    }

    /// A refusal that is ours, made without asking the service.
    pub(crate) fn refused(self, code: &str, why: impl Into<Box<dyn Error + Send + Sync>>) -> PortError {
        PortError::Refused {
            service: self.service,
            operation: self.operation,
            code: code.to_owned(),
            source: why.into(),
        }
    }

    pub(crate) fn unreadable(self, what: impl Into<String>) -> PortError {
        PortError::Unreadable { service: self.service, operation: self.operation, what: what.into() }
    }

    pub(crate) fn unavailable(self, why: impl Into<Box<dyn Error + Send + Sync>>) -> PortError {
        PortError::Unavailable { service: self.service, operation: self.operation, source: why.into() }
    }
}

/// Whether the service answered with one of these error codes.
pub(crate) fn answered<E>(error: &SdkError<E, HttpResponse>, codes: &[&str]) -> bool
where
    E: ProvideErrorMetadata,
{
    error.code().is_some_and(|code| codes.contains(&code))
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::error::ErrorMetadata;
    use aws_sdk_ec2::operation::describe_images::DescribeImagesError;
    use aws_smithy_types::body::SdkBody;

    use super::*;

    fn failed(status: u16, code: &str) -> PortError {
        let error = DescribeImagesError::generic(ErrorMetadata::builder().code(code).message("why").build());
        let raw = HttpResponse::new(status.try_into().unwrap(), SdkBody::empty());
        Call { service: "ec2", operation: "DescribeImages" }.failed(SdkError::service_error(error, raw))
    }

    #[test]
    fn throttling_and_the_services_own_faults_may_pass() {
        for error in
            [failed(400, "RequestLimitExceeded"), failed(503, "Unavailable"), failed(500, "Surprise")]
        {
            assert!(matches!(error, PortError::Unavailable { .. }), "{error:?}");
        }
        let late = SdkError::<DescribeImagesError, HttpResponse>::timeout_error("late");
        let error = Call { service: "ec2", operation: "DescribeImages" }.failed(late);
        assert!(matches!(error, PortError::Unavailable { .. }), "{error:?}");
    }

    #[test]
    fn a_refusal_names_the_services_code_and_keeps_its_words_for_the_log() {
        let error = failed(403, "UnauthorizedOperation");
        assert_eq!(error.to_string(), "ec2 refused DescribeImages: UnauthorizedOperation");
        let mut words = Vec::new();
        let mut cause = error.source();
        while let Some(error) = cause {
            words.push(error.to_string());
            cause = error.source();
        }
        assert!(words.iter().any(|words| words.contains("why")), "{words:?}");
    }
}
