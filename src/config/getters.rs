//! The values in force, typed. Not here: what they are used for.

use super::address::{ConnectString, ListenAddress};
use super::invalid;
use super::kind::Checked;
use super::parameters::Parameters;
use super::registry::Id;
use crate::error::ServerError;
use crate::hsb::settings::{AcknowledgePolicy, DurabilityLevel, SafenessLevel};
use crate::logging::Limits;
use std::path::{Path, PathBuf};
use std::time::Duration;

const MAX_SECRET_BYTES: u64 = 64 << 10;

impl Parameters {
    /// Com.Listen, with Com.ReadTimeout unless it has its own `-r`.
    pub fn listen(&self) -> ListenAddress {
        let (listen, timeout) = (self.checked(Id::Listen), self.checked(Id::ReadTimeout));
        listen_address(&listen, &timeout)
    }

    /// The address if Com.Listen were this; an error if it must not be.
    pub fn listen_if(&self, value: &str) -> Result<ListenAddress, ServerError> {
        Ok(listen_address(&self.check(Id::Listen, value)?, &self.checked(Id::ReadTimeout)))
    }

    /// How long a client may pause in the middle of a message or line: -r of Com.Listen, or Com.ReadTimeout. None: for ever.
    pub fn client_read_timeout(&self) -> Option<Duration> {
        self.listen().read_timeout
    }

    /// Com.MaxConnections.
    pub fn max_connections(&self) -> usize {
        self.count(Id::MaxConnections)
    }

    /// Com.LoginTimeout.
    pub fn login_timeout(&self) -> Duration {
        self.milliseconds(Id::LoginTimeout)
    }

    /// Com.MaxPendingLogins.
    pub fn max_pending_logins(&self) -> usize {
        self.count(Id::MaxPendingLogins)
    }

    /// General.BackupBlockSize.
    pub fn backup_block_size_bytes(&self) -> usize {
        self.count(Id::BackupBlockSize)
    }

    /// General.BackupDirectory.
    pub fn backup_directory(&self) -> PathBuf {
        self.path(Id::BackupDirectory)
    }

    /// General.BackupDeleteLog.
    pub fn backup_delete_log(&self) -> bool {
        self.flag(Id::BackupDeleteLog)
    }

    /// General.CheckpointDeleteLog.
    pub fn checkpoint_delete_log(&self) -> bool {
        self.flag(Id::CheckpointDeleteLog)
    }

    /// General.CheckpointInterval, in log records.
    pub fn checkpoint_interval_records(&self) -> u64 {
        self.number(Id::CheckpointInterval)
    }

    /// General.MinCheckpointTime.
    pub fn min_checkpoint_time(&self) -> Duration {
        self.seconds(Id::MinCheckpointTime)
    }

    /// General.LockWaitTimeOut.
    pub fn lock_wait_timeout(&self) -> Duration {
        self.seconds(Id::LockWaitTimeOut)
    }

    /// General.TransactionIdleTimeOut; none: never.
    pub fn transaction_idle_timeout(&self) -> Option<Duration> {
        self.limit(Id::TransactionIdleTimeOut).map(Duration::from_secs)
    }

    /// General.SnapshotMaxSize; 0: unlimited.
    pub fn snapshot_max_size_bytes(&self) -> u64 {
        self.number(Id::SnapshotMaxSize)
    }

    /// General.SnapshotMaxAge; zero: never.
    pub fn snapshot_max_age(&self) -> Duration {
        self.seconds(Id::SnapshotMaxAge)
    }

    /// General.MaxStatementMemory.
    pub fn statement_memory_bytes(&self) -> u64 {
        self.number(Id::MaxStatementMemory)
    }

    /// General.Readonly.
    pub fn read_only(&self) -> bool {
        self.flag(Id::Readonly)
    }

    /// General.Diskless.
    pub fn diskless(&self) -> bool {
        self.flag(Id::Diskless)
    }

    /// IndexFile.FileSpec_1.
    pub fn database_file(&self) -> PathBuf {
        self.path(Id::DatabaseFile)
    }

    /// IndexFile.BlockSize.
    pub fn page_size_bytes(&self) -> usize {
        self.count(Id::PageSize)
    }

    /// IndexFile.CacheSize.
    pub fn cache_size_bytes(&self) -> u64 {
        self.number(Id::CacheSize)
    }

    /// Logging.LogEnabled.
    pub fn log_enabled(&self) -> bool {
        self.flag(Id::LogEnabled)
    }

    /// Logging.LogDir.
    pub fn log_directory(&self) -> PathBuf {
        self.path(Id::LogDir)
    }

    /// Logging.FileNameTemplate.
    pub fn log_file_template(&self) -> String {
        self.text(Id::FileNameTemplate)
    }

    /// Logging.DigitTemplateChar.
    pub fn log_digit_character(&self) -> char {
        self.text(Id::DigitTemplateChar).chars().next().unwrap_or('#')
    }

    /// Logging.MinSplitSize.
    pub fn log_split_size_bytes(&self) -> u64 {
        self.number(Id::MinSplitSize)
    }

    /// Logging.DurabilityLevel.
    pub fn durability_level(&self) -> DurabilityLevel {
        DurabilityLevel::from_number(self.number(Id::DurabilityLevel)).unwrap_or_default()
    }

    /// Logging.RelaxedMaxDelay.
    pub fn relaxed_max_delay(&self) -> Duration {
        self.milliseconds(Id::RelaxedMaxDelay)
    }

    /// Srv.MessageLogSize and Srv.MessageLogFiles.
    pub fn message_log_limits(&self) -> Limits {
        Limits { bytes: self.limit(Id::MessageLogSize), files: self.number(Id::MessageLogFiles) }
    }

    /// HotStandby.HSBEnabled.
    pub fn hsb_enabled(&self) -> bool {
        self.flag(Id::HsbEnabled)
    }

    /// HotStandby.Connect.
    pub fn connect(&self) -> Option<ConnectString> {
        ConnectString::parse(&self.text(Id::Connect)).ok()
    }

    /// HotStandby.ConnectTimeout; none: as long as the system allows.
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.limit(Id::ConnectTimeout).map(Duration::from_millis)
    }

    /// HotStandby.PingInterval.
    pub fn ping_interval(&self) -> Duration {
        self.milliseconds(Id::PingInterval)
    }

    /// HotStandby.PingTimeout; none: no pinging.
    pub fn ping_timeout(&self) -> Option<Duration> {
        self.limit(Id::PingTimeout).map(Duration::from_millis)
    }

    /// HotStandby.AutoPrimaryAlone.
    pub fn auto_primary_alone(&self) -> bool {
        self.flag(Id::AutoPrimaryAlone)
    }

    /// HotStandby.SafenessLevel.
    pub fn safeness_level(&self) -> SafenessLevel {
        SafenessLevel::at(self.number(Id::SafenessLevel))
    }

    /// HotStandby.2SafeAckPolicy.
    pub fn acknowledge_policy(&self) -> AcknowledgePolicy {
        AcknowledgePolicy::from_number(self.number(Id::AcknowledgePolicy)).unwrap_or_default()
    }

    /// HotStandby.1SafeMaxDelay.
    pub fn one_safe_max_delay(&self) -> Duration {
        self.milliseconds(Id::OneSafeMaxDelay)
    }

    /// HotStandby.CatchupSpeedRate.
    pub fn catchup_speed_rate_percent(&self) -> u64 {
        self.number(Id::CatchupSpeedRate)
    }

    /// HotStandby.MaxLogSize; none: unlimited.
    pub fn max_log_size_bytes(&self) -> Option<u64> {
        self.limit(Id::MaxLogSize)
    }

    /// HotStandby.MaxMemLogSize.
    pub fn max_memory_log_size_bytes(&self) -> usize {
        self.count(Id::MaxMemLogSize)
    }

    /// HotStandby.CopyDirectory.
    pub fn copy_directory(&self) -> Option<PathBuf> {
        Some(Id::CopyDirectory).filter(|id| !self.text(*id).is_empty()).map(|id| self.path(id))
    }

    /// HotStandby.NetcopyRpcTimeout.
    pub fn netcopy_timeout(&self) -> Duration {
        self.milliseconds(Id::NetcopyRpcTimeout)
    }

    /// HotStandby.NetcopyRpcCompress.
    pub fn netcopy_compress(&self) -> bool {
        self.flag(Id::NetcopyRpcCompress)
    }

    /// HotStandby.NetcopyMaxRate; none: unlimited.
    pub fn netcopy_max_rate_bytes_per_second(&self) -> Option<u64> {
        self.limit(Id::NetcopyMaxRate)
    }

    /// Content of HotStandby.PeerSecretFile without blanks around it; none if no file is named.
    pub fn peer_secret(&self) -> Result<Option<String>, ServerError> {
        if self.text(Id::PeerSecretFile).is_empty() {
            return Ok(None);
        }
        let path = self.path(Id::PeerSecretFile);
        read_secret(&path).map(Some)
    }

    /// A limit whose 0 means that there is none.
    fn limit(&self, id: Id) -> Option<u64> {
        Some(self.number(id)).filter(|number| *number > 0)
    }

    /// A parameter that is counted in milliseconds.
    pub fn milliseconds(&self, id: Id) -> Duration {
        Duration::from_millis(self.number(id))
    }

    /// A parameter that is counted in seconds.
    pub fn seconds(&self, id: Id) -> Duration {
        Duration::from_secs(self.number(id))
    }

    /// A parameter that names a file or directory, relative to solid.ini's directory.
    pub fn path(&self, id: Id) -> PathBuf {
        self.directory.join(self.text(id))
    }

    fn count(&self, id: Id) -> usize {
        usize::try_from(self.number(id)).unwrap_or(usize::MAX)
    }

    fn checked(&self, id: Id) -> Checked {
        Checked { text: self.text(id), number: self.number(id) }
    }
}

/// The address of a checked Com.Listen and Com.ReadTimeout.
pub(super) fn listen_address(listen: &Checked, read_timeout: &Checked) -> ListenAddress {
    // The text was checked; the loopback port stands in so that nothing here can panic.
    let timeout = Some(read_timeout.number).filter(|number| *number > 0).map(Duration::from_millis);
    match ConnectString::parse(&listen.text) {
        Ok(own) => {
            let read_timeout = own.read_timeout_or(timeout);
            ListenAddress { host: own.host, port: own.port, read_timeout }
        }
        Err(_) => ListenAddress {
            host: super::address::LOOPBACK_HOST.to_owned(),
            port: 1964,
            read_timeout: timeout,
        },
    }
}

fn read_secret(path: &Path) -> Result<String, ServerError> {
    let failed =
        |problem: String| invalid(format!("HotStandby.PeerSecretFile: {}: {problem}", path.display()));
    let metadata = std::fs::metadata(path).map_err(|error| failed(format!("cannot be read: {error}.")))?;
    if !metadata.is_file() || metadata.len() > MAX_SECRET_BYTES {
        return Err(failed("is not a file of a secret's size.".to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(format!("cannot be read: {error}.")))?;
    let secret = text.trim();
    if secret.is_empty() {
        return Err(failed("is empty; it holds the secret that both servers share.".to_owned()));
    }
    Ok(secret.to_owned())
}
