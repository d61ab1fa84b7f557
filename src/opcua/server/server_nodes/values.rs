//! What the variables of the Server object say, where the UA crate says nothing or not the truth.
//!
//! The crate leaves most of ServerCapabilities null, calls MinSupportedSampleRate an UInt32, lets the CurrentTime in
//! ServerStatus stand still, and counts no sessions. Limits are taken from the configuration that the crate enforces.

use super::ServerNodes;
use ::opcua::server::ServerConfig;
use ::opcua::types::{
    DateTime, ExtensionObject, LocalizedText, ServerDiagnosticsSummaryDataType, ServerStatusDataType, StatusCode,
    UAString, VariableId, Variant, VariantScalarTypeId,
};
use VariableId as V;

/// What has been tested with clients of others, in the words of OPC 10000-7.
const PROFILES: [&str; 5] = [
    "http://opcfoundation.org/UA-Profile/Server/Core2017Facet",
    "http://opcfoundation.org/UA-Profile/Server/EmbeddedDataChangeSubscription2017",
    "http://opcfoundation.org/UA-Profile/Server/DataAccess",
    "http://opcfoundation.org/UA-Profile/Server/Methods",
    "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary",
];

/// The descriptions of our nodes are in English; names are as they were configured.
const LOCALES: [&str; 1] = ["en"];

/// Those that change without anybody writing them.
pub(super) const CHANGING: [VariableId; 17] = [
    V::Server_ServerStatus,
    V::Server_ServerStatus_CurrentTime,
    V::Server_ServerStatus_SecondsTillShutdown,
    V::Server_ServerStatus_ShutdownReason,
    V::Server_ServerDiagnostics_ServerDiagnosticsSummary,
    V::Server_ServerDiagnostics_ServerDiagnosticsSummary_ServerViewCount,
    V::Server_ServerDiagnostics_ServerDiagnosticsSummary_CurrentSessionCount,
    V::Server_ServerDiagnostics_ServerDiagnosticsSummary_CumulatedSessionCount,
    V::Server_ServerDiagnostics_ServerDiagnosticsSummary_SecurityRejectedSessionCount,
    V::Server_ServerDiagnostics_ServerDiagnosticsSummary_RejectedSessionCount,
    V::Server_ServerDiagnostics_ServerDiagnosticsSummary_SessionTimeoutCount,
    V::Server_ServerDiagnostics_ServerDiagnosticsSummary_SessionAbortCount,
    V::Server_ServerDiagnostics_ServerDiagnosticsSummary_CurrentSubscriptionCount,
    V::Server_ServerDiagnostics_ServerDiagnosticsSummary_CumulatedSubscriptionCount,
    V::Server_ServerDiagnostics_ServerDiagnosticsSummary_PublishingIntervalCount,
    V::Server_ServerDiagnostics_ServerDiagnosticsSummary_SecurityRejectedRequestsCount,
    V::Server_ServerDiagnostics_ServerDiagnosticsSummary_RejectedRequestsCount,
];

impl ServerNodes {
    /// `None`: what the crate says is right. An error: there is nothing to say.
    pub(super) fn value(&self, id: VariableId) -> Option<Result<Variant, StatusCode>> {
        let value = self.status(id).or_else(|| self.summary(id)).or_else(|| capability(id, &self.context.info.config));
        let value = value.or_else(|| (self.further)(id));
        if let Some(value) = value {
            return Some(Ok(value));
        }
        Some(match id {
            V::Server_ServerDiagnostics_EnabledFlag => Ok(self.context.info.config.diagnostics.into()),
            V::Server_Auditing => Ok(false.into()),
            // RedundancySupport None (OPC 10000-5, 12.5).
            V::Server_ServerRedundancy_RedundancySupport => Ok(Variant::Int32(0)),
            V::Server_ServerRedundancy_RedundantServerArray => {
                Ok(Variant::from((VariantScalarTypeId::ExtensionObject, Vec::<Variant>::new())))
            }
            // The crate keeps no such records; an empty array would say that there are no sessions.
            V::Server_ServerDiagnostics_SamplingIntervalDiagnosticsArray
            | V::Server_ServerDiagnostics_SubscriptionDiagnosticsArray
            | V::Server_ServerDiagnostics_SessionsDiagnosticsSummary_SessionDiagnosticsArray
            | V::Server_ServerDiagnostics_SessionsDiagnosticsSummary_SessionSecurityDiagnosticsArray => {
                Err(StatusCode::BadNotSupported)
            }
            _ => return None,
        })
    }

    fn status(&self, id: VariableId) -> Option<Variant> {
        let status = &self.context.status;
        let seconds = status.seconds_till_shutdown().unwrap_or(0);
        let reason = status.shutdown_reason().unwrap_or_else(LocalizedText::null);
        Some(match id {
            V::Server_ServerStatus => ExtensionObject::from_message(ServerStatusDataType {
                start_time: status.start_time(),
                current_time: DateTime::now(),
                state: status.state(),
                build_info: status.build_info(),
                seconds_till_shutdown: seconds,
                shutdown_reason: reason,
            })
            .into(),
            V::Server_ServerStatus_CurrentTime => DateTime::now().into(),
            V::Server_ServerStatus_SecondsTillShutdown => seconds.into(),
            V::Server_ServerStatus_ShutdownReason => reason.into(),
            _ => return None,
        })
    }

    /// Counts of the crate, with those that it does not make put right.
    fn summary(&self, id: VariableId) -> Option<Variant> {
        let counted = self.context.info.diagnostics.get(id)?.value?;
        Some(match id {
            V::Server_ServerDiagnostics_ServerDiagnosticsSummary_CurrentSessionCount => self.sessions.count().into(),
            V::Server_ServerDiagnostics_ServerDiagnosticsSummary_PublishingIntervalCount => {
                self.sessions.publishing_intervals(&self.context.subscriptions).into()
            }
            V::Server_ServerDiagnostics_ServerDiagnosticsSummary => {
                let Variant::ExtensionObject(counted) = &counted else { return None };
                let counted = counted.inner_as::<ServerDiagnosticsSummaryDataType>()?;
                ExtensionObject::from_message(ServerDiagnosticsSummaryDataType {
                    current_session_count: self.sessions.count(),
                    publishing_interval_count: self.sessions.publishing_intervals(&self.context.subscriptions),
                    ..counted.clone()
                })
                .into()
            }
            _ => counted,
        })
    }
}

/// ServerCapabilities (OPC 10000-5, 6.3.2), as far as the crate leaves them null or says them wrongly.
fn capability(id: VariableId, config: &ServerConfig) -> Option<Variant> {
    let (limits, subscriptions) = (&config.limits, &config.limits.subscriptions);
    let number = |limit: usize| Variant::UInt32(u32::try_from(limit).unwrap_or(u32::MAX));
    let texts = |texts: &[&str]| {
        let texts: Vec<UAString> = texts.iter().map(|text| UAString::from(*text)).collect();
        Variant::from(texts)
    };
    Some(match id {
        V::Server_ServerCapabilities_ServerProfileArray => texts(&PROFILES),
        V::Server_ServerCapabilities_LocaleIdArray => texts(&LOCALES),
        V::Server_ServerCapabilities_MinSupportedSampleRate => subscriptions.min_sampling_interval_ms.into(),
        V::Server_ServerCapabilities_SoftwareCertificates => {
            (VariantScalarTypeId::ExtensionObject, Vec::<Variant>::new()).into()
        }
        V::Server_ServerCapabilities_ConformanceUnits => {
            (VariantScalarTypeId::QualifiedName, Vec::<Variant>::new()).into()
        }
        V::Server_ServerCapabilities_MaxSessions => number(limits.max_sessions),
        V::Server_ServerCapabilities_MaxSubscriptionsPerSession => number(subscriptions.max_subscriptions_per_session),
        V::Server_ServerCapabilities_MaxSubscriptions => {
            number(subscriptions.max_subscriptions_per_session.saturating_mul(limits.max_sessions))
        }
        V::Server_ServerCapabilities_MaxMonitoredItemsPerSubscription => {
            number(subscriptions.max_monitored_items_per_sub)
        }
        // 0: no limit of its own.
        V::Server_ServerCapabilities_MaxMonitoredItems
        | V::Server_ServerCapabilities_MaxSelectClauseParameters
        | V::Server_ServerCapabilities_MaxWhereClauseParameters => Variant::UInt32(0),
        V::Server_ServerCapabilities_MaxMonitoredItemsQueueSize => number(subscriptions.max_monitored_item_queue_size),
        // The crate cuts it to 16 bits.
        V::Server_ServerCapabilities_MaxBrowseContinuationPoints => points(limits.max_browse_continuation_points),
        V::Server_ServerCapabilities_MaxHistoryContinuationPoints => points(limits.max_history_continuation_points),
        // There is no Query service.
        V::Server_ServerCapabilities_MaxQueryContinuationPoints => Variant::UInt16(0),
        _ => return None,
    })
}

fn points(limit: usize) -> Variant {
    Variant::UInt16(u16::try_from(limit).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_what_is_configured() {
        let mut config = ServerConfig::default();
        config.limits.max_sessions = 7;
        config.limits.subscriptions.max_subscriptions_per_session = 3;
        config.limits.subscriptions.min_sampling_interval_ms = 12.5;
        config.limits.max_browse_continuation_points = 1 << 20;
        let value = |id| capability(id, &config);
        assert_eq!(value(V::Server_ServerCapabilities_MaxSessions), Some(Variant::UInt32(7)));
        assert_eq!(value(V::Server_ServerCapabilities_MaxSubscriptions), Some(Variant::UInt32(21)));
        assert_eq!(value(V::Server_ServerCapabilities_MinSupportedSampleRate), Some(Variant::Double(12.5)));
        assert_eq!(value(V::Server_ServerCapabilities_MaxBrowseContinuationPoints), Some(Variant::UInt16(u16::MAX)));
        assert_eq!(value(V::Server_NamespaceArray), None);
    }
}
